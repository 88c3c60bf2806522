-- include: models/queue/parts/now.lua
-- A job takes a place: it may be answered by a later step than its first.
-- KEYS: since when places are known (ms), the places of the batch: a sorted set of claimed jobs by the end of their
--   lease.
-- ARGV: time, the claimed job, lease (ms), for how long after a wipe no place is given (ms).
-- Returns {places taken, 0}; or {0, for how many ms none is given}.
local since = tonumber(redis.call('GET', KEYS[1]))
if not since or since > now then
  since = now
  redis.call('SET', KEYS[1], string.format('%.0f', now))
end
if now < since + ARGV[4] then return {0, math.ceil(since + ARGV[4] - now)} end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3] * 2)
return {redis.call('ZCARD', KEYS[2]), 0}
