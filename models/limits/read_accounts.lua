-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: models/limits/parts/day.lua
-- include: models/limits/parts/rates.lua
-- import: WIDE from models/limits/constants.py
-- What the limiter knows of accounts with a model, for people and metrics. Writes nothing.
-- KEYS: for each account and model its rate, flight and day. ARGV: time.
-- Returns for each {rate, calls in flight, day}. All numbers are texts, '' where nothing is known; {} stands for a key
-- that does not exist or holds what no worker wrote.
--   rate: {schedule of requests, schedule of tokens, window of a slow start}
--   schedule: {when it is next free (ms), advertised limit, rate that refusals taught as of now, brake, its end (ms)},
--     per minute; refusals teach only a rate of requests
--   day: {requests, tokens} of today
local function text(number) return number and string.format('%.3f', number) or '' end

local function schedule(key, what, learned)
  local free, advertised, brake, brake_until =
    unpack(numbers_of(key, {what, 'advertised_' .. what, 'brake_' .. what, 'brake_' .. what .. '_until'}), 1, 4)
  return {text(free), text(advertised), text(learned), text(brake), text(brake_until)}
end

local function rate_of(key)
  local learned = learned_rate(unpack(numbers_of(key, LEARNED), 1, #LEARNED))
  local window = numbers_of(key, {'window'})[1]
  if window and window >= WIDE then window = nil end
  return {schedule(key, 'requests', learned), schedule(key, 'tokens'), text(window)}
end

local function flight_of(key) return text(leased(key)) end

local function day_of_key(key)
  local today = day_of(now)
  local used = numbers_of(key, {of_day(today, 'requests'), of_day(today, 'tokens')})
  return {text(used[1]), text(used[2])}
end

local function if_ours(read, key)
  if redis.call('EXISTS', key) == 0 then return {} end
  local is_ours, found = pcall(read, key)
  return is_ours and found or {}
end

local seen = {}
for i = 1, #KEYS, 3 do
  seen[#seen + 1] = {if_ours(rate_of, KEYS[i]), if_ours(flight_of, KEYS[i + 1]), if_ours(day_of_key, KEYS[i + 2])}
end
return seen
