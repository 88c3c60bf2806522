-- include: models/queue/parts/now.lua
-- Calls in flight: one field per worker, 'count|end of its lease'. Counts of workers that died do not count.
local function in_flight(key)
  local sum = 0
  local fields = redis.call('HGETALL', key)
  for i = 2, #fields, 2 do
    local count, lease = string.match(fields[i], '^(-?%d+)|([%d.]+)$')
    if tonumber(lease) > now then sum = sum + tonumber(count) end
  end
  return sum
end
local function add_flight(key, worker, by, lease_ms)
  local own = redis.call('HGET', key, worker)
  local count = own and tonumber(string.match(own, '^(-?%d+)|')) or 0
  redis.call('HSET', key, worker, string.format('%d|%.0f', math.max(count + by, 0), now + lease_ms))
  redis.call('PEXPIRE', key, lease_ms * 20)
end
