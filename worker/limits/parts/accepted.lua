-- How many calls the provider accepts: two sums of calls that were not refused, each call weighted by how long before
-- the latest start it began. `short` has a time constant of 5 s; `long` has 60 s, for limits of a few calls a minute.
-- `short_since` and `long_since` say when each sum began, `latest` is the latest start. A call counts from its start,
-- so that a refusal finds those under way counted; a refused one is taken out again with its weight. `open_end` is 1
-- when the latest start itself was refused.
local SHORT, LONG = 5000, 60000

-- Returns latest, short, short_since, long, long_since; each may be nil.
local function accepted_until(key)
  local known = redis.call('HMGET', key, 'latest', 'short', 'short_since', 'long', 'long_since')
  for i = 1, 5 do known[i] = tonumber(known[i]) end
  return unpack(known, 1, 5)
end

local function count_accepted(key, start)
  local latest, short, short_since, long, long_since = accepted_until(key)
  if not latest or start - latest > SHORT then short, short_since = 0, start end
  if not latest or start - latest > LONG then long, long_since = 0, start end
  local at = math.max(latest or start, start)
  local past, ours = at - (latest or start), at - start
  redis.call('HSET', key, 'latest', at, 'short_since', short_since, 'long_since', long_since,
    'short', short * math.exp(-past / SHORT) + math.exp(-ours / SHORT),
    'long', long * math.exp(-past / LONG) + math.exp(-ours / LONG), 'open_end', 0)
end

local function count_refused(key, start)
  local latest, short, short_since, long, long_since = accepted_until(key)
  if not latest then return end
  if start >= short_since then short = math.max(short - math.exp((start - latest) / SHORT), 0) end
  if start >= long_since then long = math.max(long - math.exp((start - latest) / LONG), 0) end
  redis.call('HSET', key, 'short', short, 'long', long)
  if start > latest - 1 then redis.call('HSET', key, 'open_end', 1) end
end

-- Requests per minute that were accepted until the latest start; nil when fewer than `least` were. For a steady rate
-- the sum is half a call too large just after an accepted call and half a call too small just before one.
local function accepted_per_minute(key, least)
  local latest, short, short_since, long, long_since = accepted_until(key)
  local half = redis.call('HGET', key, 'open_end') == '1' and 0.5 or -0.5
  local function rate(sum, since, constant)
    local span = latest - since
    if span > 1000 then sum = sum + half end
    return 60000 * sum / (constant * (1 - math.exp(-math.max(span, 1000) / constant)))
  end
  if latest and short >= 2 * least then return rate(short, short_since, SHORT) end
  if latest and long >= least then return rate(long, long_since, LONG) end
end
