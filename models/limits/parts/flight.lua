-- include: models/queue/parts/now.lua
-- Calls in flight: a hash with one field per worker, 'count|end of its lease in ms'. The counts of workers that died do
-- not count any more when their lease ends.

-- How many there are over the fleet.
local function in_flight(key)
  local sum = 0
  local fields = redis.call('HGETALL', key)
  for i = 2, #fields, 2 do
    local count, lease = string.match(fields[i], '^(-?%d+)|([%d.]+)$')
    if tonumber(lease) > now then sum = sum + tonumber(count) end
  end
  return sum
end
