-- include: models/queue/parts/now.lua
-- KEYS: since when places are known, the places of the batch. ARGV: now, who takes, lease in ms, how long a wipe is
-- waited out in ms. Returns how many places are taken, or 0 and for how many ms nobody takes one.
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
