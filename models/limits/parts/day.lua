-- include: models/queue/parts/clock.lua
-- Calls and tokens of a UTC day: a hash with the fields `N|requests`, `N|tokens`, and `N|held` for those of the tokens
-- that calls under way hold. N is the number of the day since 1970. A call belongs to the day in which it starts.
local DAY_MS = 86400000
local function day_of(ms) return math.floor(tonumber(string.format('%.3f', ms)) / DAY_MS) end
local function of_day(day, what) return string.format('%d|%s', day, what) end
