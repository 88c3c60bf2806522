-- include: models/queue/parts/clock.lua
-- include: models/limits/parts/day.lua
-- include: models/queue/parts/leased.lua
-- What the limits of a UTC day leave, and the count of it; its hash is described in `day.lua`.

-- How many calls of `tokens` tokens the day of `start` has left (nil: no limit), and when there may be more (ms): at
-- the end of the day, or in a second where calls under way hold what this one needs and may give it back. `rpd` and
-- `tpd` are the limits of the day (0: none). A call that is larger than a whole day's tokens is the only one of its
-- day.
local function left_of_day(key, flight, start, rpd, tpd, tokens)
  if rpd + tpd == 0 then return end
  local day = day_of(start)
  local known = redis.call('HMGET', key, of_day(day, 'requests'), of_day(day, 'tokens'), of_day(day, 'held'))
  local requests, used, held = tonumber(known[1]) or 0, tonumber(known[2]) or 0, tonumber(known[3]) or 0
  local left, again = rpd > 0 and math.max(rpd - requests, 0) or nil, (day + 1) * DAY_MS
  if tpd > 0 and left ~= 0 then
    local need = math.max(tokens, 1)
    local calls = used == 0 and math.max(math.floor(tpd / need), 1) or math.max(math.floor((tpd - used) / need), 0)
    if calls == 0 and tpd - used + held >= need and leased(flight) > 0 then again = math.min(again, now + 1000) end
    left = math.min(left or calls, calls)
  end
  return left, again
end

-- Adds to the fields of a day; none becomes negative.
local function add_to_day(key, day, requests, tokens, held)
  for what, by in pairs({requests = requests, tokens = tokens, held = held}) do
    local field = of_day(day, what)
    if by ~= 0 and redis.call('HINCRBY', key, field, string.format('%d', by)) < 0 then
      redis.call('HSET', key, field, 0)
    end
  end
end

-- A call of `tokens` tokens starts at `start`. The count outlives its day by an hour, for calls that end after it.
local function count_in_day(key, start, tokens)
  local day = day_of(start)
  add_to_day(key, day, 1, tokens, tokens)
  redis.call('HDEL', key, of_day(day - 2, 'requests'), of_day(day - 2, 'tokens'), of_day(day - 2, 'held'))
  local ms = math.ceil((day + 1) * DAY_MS - now + 3600000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

-- That call has ended and used `more_tokens` more than the `held` ones that it had reserved. One that was not `made`
-- does not count.
local function settle_in_day(key, start, made, more_tokens, held)
  local day = day_of(start)
  if redis.call('HEXISTS', key, of_day(day, 'requests')) == 1 then
    add_to_day(key, day, made and 0 or -1, more_tokens, -held)
  end
end
