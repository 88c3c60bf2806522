-- include: models/queue/parts/now.lua
-- KEYS[1] hash: 'average in ms' by step, and 'when' (unix ms) by 'at:' and step
-- ARGV: now, ms after which a measurement is forgotten, then of each step: name, mean of its news in ms, and
--       the share of the news in the average
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
