-- include: models/queue/parts/now.lua
-- KEYS: flights. ARGV: time, worker, lease ms; then this worker's true count for each. Fields of dead workers go.
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
