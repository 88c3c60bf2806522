-- include: models/queue/parts/now.lua
-- Changes a worker's count of calls in flight (see `flight.lua`) by `by`, and renews its lease.
local function add_flight(key, worker, by, lease_ms)
  local own = redis.call('HGET', key, worker)
  local count = own and tonumber(string.match(own, '^(-?%d+)|')) or 0
  redis.call('HSET', key, worker, string.format('%d|%.0f', math.max(count + by, 0), now + lease_ms))
  redis.call('PEXPIRE', key, lease_ms * 20)
end
