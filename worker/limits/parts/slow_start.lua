-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- import: WIDE from models/limits/constants.py
-- Slow start. While no limit is known, and after failures, at most `window` calls may be in flight, FIRST to begin
-- with. The window grows by two with each call that is answered, and fourfold per second, because a refusal comes at
-- once and an answer may take long; but only while at least a quarter of it is in use. From WIDE on it delays
-- nothing. Calls that were in flight when it began (`stuck`) do not count. Who meets a full window asks again in SOON
-- ms.
local FIRST, SOON = 2, 100

-- Returns the window, how much of it is in use, and `stuck`; nothing when it is wide open.
local function window_of(rate, flight)
  local known = redis.call('HMGET', rate, 'window', 'window_at', 'stuck')
  local window, at = tonumber(known[1]) or FIRST, tonumber(known[2]) or now
  if window >= WIDE then return end
  local flying = leased(flight)
  local stuck = math.min(tonumber(known[3]) or 0, flying)
  local used = flying - stuck
  if used * 4 >= window then window = window * 4 ^ (math.max(math.min(now - at, 1000), 0) / 1000) end
  return window, used, stuck
end

-- Whether a slow start is under way; `some`: a limit is known.
local function has_window(rate, some) return not some or redis.call('HEXISTS', rate, 'window') == 1 end

local function set_window(rate, window, stuck)
  redis.call('HSET', rate, 'window', window, 'window_at', now, 'stuck', stuck)
  keep(rate, now)
end

-- After a breaker has closed (within 5 s), each account starts slowly, once. Calls that were under way may be stuck and
-- are not counted.
local function recover(rate, flight, breaker)
  local closed = tonumber(redis.call('HGET', breaker, 'closed'))
  if not closed or now - closed > 5000 or tonumber(redis.call('HGET', rate, 'recovers')) == closed then return end
  redis.call('HSET', rate, 'recovers', closed)
  set_window(rate, FIRST, leased(flight))
end
