-- include: models/queue/parts/now.lua
-- include: worker/limits/parts/slow_start.lua
-- A breaker that was open until a moment ago: its deployment starts slowly on each account. Calls that were under way
-- are not counted, because they may be stuck.
local function recover(rate, flight, breaker)
  local closed = tonumber(redis.call('HGET', breaker, 'closed'))
  if not closed or now - closed > 5000 or tonumber(redis.call('HGET', rate, 'recovers')) == closed then return end
  redis.call('HSET', rate, 'recovers', closed)
  set_window(rate, FIRST, in_flight(flight))
end
