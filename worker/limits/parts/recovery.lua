-- include: models/queue/parts/now.lua
-- include: models/limits/parts/flight.lua
-- include: worker/limits/parts/slow_start.lua
-- After a breaker has closed (within 5 s), each account starts slowly, once. Calls that were under way may be stuck and
-- are not counted.
local function recover(rate, flight, breaker)
  local closed = tonumber(redis.call('HGET', breaker, 'closed'))
  if not closed or now - closed > 5000 or tonumber(redis.call('HGET', rate, 'recovers')) == closed then return end
  redis.call('HSET', rate, 'recovers', closed)
  set_window(rate, FIRST, in_flight(flight))
end
