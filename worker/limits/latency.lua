-- include: models/queue/parts/clock.lua
-- A worker shares how fast steps answered, and learns what all workers measured. Old measurements are removed.
-- KEYS: the hash of latencies: per step its average in ms, and as 'at:<step>' when it was measured (unix ms).
-- ARGV: time, ms after which a measurement is forgotten; then for each step that the worker measured: its name, the
--   mean of the new measurements (ms), and their weight in the average (0 to 1).
-- Returns step, average (ms) of each step that was measured lately.
local name = KEYS[1]
for i = 3, #ARGV, 3 do
  local average = tonumber(redis.call('HGET', name, ARGV[i]))
  local at = tonumber(redis.call('HGET', name, 'at:' .. ARGV[i])) or 0
  local mean, share = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if average and now - at < tonumber(ARGV[2]) then
    mean = average + share * (mean - average)
  end
  redis.call('HSET', name, ARGV[i], mean, 'at:' .. ARGV[i], string.format('%d', now))
end
redis.call('PEXPIRE', name, ARGV[2])
local all, fresh = redis.call('HGETALL', name), {}
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 3) ~= 'at:' then
    local at = tonumber(redis.call('HGET', name, 'at:' .. all[i])) or 0
    if now - at < tonumber(ARGV[2]) then
      table.insert(fresh, all[i])
      table.insert(fresh, all[i + 1])
    else
      redis.call('HDEL', name, all[i], 'at:' .. all[i])
    end
  end
end
return fresh
