-- include: models/queue/parts/now.lua
-- Renews the lease of a worker's counts of calls in flight and corrects them. Fields of workers that died long ago are
-- removed.
-- KEYS: flights. ARGV: time, worker, lease (ms); then for each key how many calls of this worker are in flight.
-- Returns nothing.
local lease_ms = tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2], string.format('%d|%.0f', tonumber(ARGV[i + 3]), now + lease_ms))
  redis.call('PEXPIRE', key, lease_ms * 20)
  local fields = redis.call('HGETALL', key)
  for j = 2, #fields, 2 do
    if tonumber(string.match(fields[j], '|([%d.]+)$')) < now - lease_ms * 20 then
      redis.call('HDEL', key, fields[j - 1])
    end
  end
end
