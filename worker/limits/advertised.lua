-- include: models/queue/parts/clock.lua
-- include: worker/limits/parts/accepted.lua
-- The headers of a response advertise limits.
-- KEYS: rate. ARGV: time; then for requests and for tokens: limit (0: not advertised), remaining (-1: not advertised),
--   time to the reset (ms), period (ms).
-- Returns nothing.
-- The limit becomes the rate. Where the first calls ran without one, the schedule's burst counts as used. When less
-- remains than what we used ourselves explains, others use the account: what remains is spread over the time to the
-- reset. A bucket of a second is full again too soon to tell. A daily limit sets no pace; once it is used up, nothing
-- starts until the reset.
local rate = KEYS[1]
local latest, _, _, long, long_since = accepted_until(rate)
latest = latest or now

-- How many requests of ours the provider has counted in its period (ms).
local function own(period)
  local span = latest - (long_since or latest)
  if not long or span <= 0 then return long or 0 end
  return math.max(long / (1 - math.exp(-span / LONG)) * math.min(span, period) / LONG, long)
end

local last = now
for i, what in ipairs({'requests', 'tokens'}) do
  local limit, remaining = tonumber(ARGV[i * 4 - 2]), tonumber(ARGV[i * 4 - 1])
  local reset, period = tonumber(ARGV[i * 4]), tonumber(ARGV[i * 4 + 1])
  if period > 60000 then
    if remaining == 0 and reset > 1000 then
      local free = tonumber(redis.call('HGET', rate, what)) or 0
      redis.call('HSET', rate, 'brake_' .. what, 1, 'brake_' .. what .. '_until', now + reset,
        what, math.max(free, now + reset + 1000))
      last = math.max(last, now + reset)
    end
  elseif limit > 0 then
    local per_minute = limit * 60000 / period
    if redis.call('HSET', rate, 'advertised_' .. what, per_minute) == 1 then
      redis.call('HSETNX', rate, what, now + 1000)
      redis.call('HDEL', rate, 'window')
    end
    if what == 'requests' and remaining >= 0 and reset > 1500 and remaining + own(period) < 0.9 * limit then
      redis.call('HSET', rate, 'brake_requests', math.max(remaining * 60000 / reset, 1),
        'brake_requests_until', now + math.min(reset, 5000))
    end
  end
end
keep(rate, last)
