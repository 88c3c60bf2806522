"""The Lua that the limiter's scripts share. `now` is the time in milliseconds."""

from understudy.models.limits.state import KEPT

FLIGHT = """
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
"""

_SCHEDULES = """
-- A call that takes more than SLOW ms of its schedule belongs to a slow limit: such calls are booked further ahead.
-- Where it takes a second or more, there is no burst: two calls begin no closer together than TIGHT of that.
local SLOW, TIGHT = 500, 0.994
-- GCRA: `theoretical` is when the virtual schedule is next free; a second's worth may be taken ahead of it.
local function earliest(theoretical, cost)
  return math.max(now, theoretical - math.max(1000 - cost, 0))
end
-- A learned rate grows by 1% a second, so that a limit that was raised is found, and by 10% a second when nothing was
-- refused for half a minute, or at once where it is a rough guess: it was far too low. Above a million a minute it is
-- no limit.
local function grown(learned, learned_at, fast)
  local s = math.max((now - learned_at) / 1000, 0)
  local slow = fast and 0 or math.min(s, 30)
  local rate = learned * 1.01 ^ slow * 1.1 ^ math.min(s - slow, 1000)
  if rate < 1000000 then return rate end
end
-- What is known of a rate: when its schedules are next free, requests and tokens per minute, whether any limit is known
-- at all, those that were configured or told, and since when a learned rate is the lowest (nil: it is not).
-- A configured limit wins over one that headers told; a learned rate, and a brake because others use the account, too,
-- win over both when they are lower.
local function schedules(key, rpm, tpm)
  local known = redis.call('HMGET', key, 'requests', 'tokens', 'learned', 'learned_at', 'told_requests', 'told_tokens',
    'brake_requests', 'brake_requests_until', 'brake_tokens', 'brake_tokens_until', 'learned_since', 'trial_share',
    'trial_pace', 'trial_until', 'grows_fast')
  for i = 1, 15 do known[i] = tonumber(known[i]) end
  local function lower(a, b) if b and (a == 0 or b < a) then return b end return a end
  if rpm == 0 then rpm = (known[5] or 0) * KEPT end
  if tpm == 0 then tpm = (known[6] or 0) * KEPT end
  local firm_rpm, firm_tpm = rpm, tpm
  local some = rpm > 0 or tpm > 0 or known[3] ~= nil
  if known[3] then
    local tried = known[12] and now < known[14]
    rpm = lower(rpm, tried and known[13] or grown(known[3], known[4], known[15] == 1))
  end
  local since = known[3] and rpm > 0 and (firm_rpm == 0 or rpm < firm_rpm) and known[11] or nil
  if known[8] and known[8] > now then rpm = lower(rpm, known[7]) end
  if known[10] and known[10] > now then tpm = lower(tpm, known[9]) end
  return known[1] or 0, known[2] or 0, rpm, tpm, some, firm_rpm, firm_tpm, since
end
"""
SCHEDULES = f"\nlocal KEPT = {KEPT}\n" + _SCHEDULES

DAY = """
-- Calls and tokens of a UTC day, by its number since 1970: `N|requests`, `N|tokens`, and of these tokens `N|held` by
-- calls under way. A call belongs to the day in which it starts.
local DAY_MS = 86400000
local function day_of(ms) return math.floor(tonumber(string.format('%.3f', ms)) / DAY_MS) end
local function of_day(day, what) return string.format('%d|%s', day, what) end
-- How many calls of so many tokens the day of `start` has left (nil: no limit), and when there may be more: at its end,
-- or in a second where calls under way hold what this one needs and may give it back. A call that is larger than a
-- whole day is the only one of its day.
local function left_of_day(key, flight, start, rpd, tpd, tokens)
  if rpd + tpd == 0 then return end
  local day = day_of(start)
  local known = redis.call('HMGET', key, of_day(day, 'requests'), of_day(day, 'tokens'), of_day(day, 'held'))
  local requests, used, held = tonumber(known[1]) or 0, tonumber(known[2]) or 0, tonumber(known[3]) or 0
  local left, again = rpd > 0 and math.max(rpd - requests, 0) or nil, (day + 1) * DAY_MS
  if tpd > 0 and left ~= 0 then
    local need = math.max(tokens, 1)
    local calls = used == 0 and math.max(math.floor(tpd / need), 1) or math.max(math.floor((tpd - used) / need), 0)
    if calls == 0 and tpd - used + held >= need and in_flight(flight) > 0 then again = math.min(again, now + 1000) end
    left = math.min(left or calls, calls)
  end
  return left, again
end
local function add_to_day(key, day, requests, tokens, held)
  for what, by in pairs({requests = requests, tokens = tokens, held = held}) do
    local field = of_day(day, what)
    if by ~= 0 and redis.call('HINCRBY', key, field, string.format('%d', by)) < 0 then
      redis.call('HSET', key, field, 0)
    end
  end
end
-- The count outlives its day by an hour, for calls that end after it.
local function count_in_day(key, start, tokens)
  local day = day_of(start)
  add_to_day(key, day, 1, tokens, tokens)
  redis.call('HDEL', key, of_day(day - 2, 'requests'), of_day(day - 2, 'tokens'), of_day(day - 2, 'held'))
  local ms = math.ceil((day + 1) * DAY_MS - now + 3600000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
local function settle_in_day(key, start, made, more_tokens, held)
  local day = day_of(start)
  if redis.call('HEXISTS', key, of_day(day, 'requests')) == 1 then
    add_to_day(key, day, made and 0 or -1, more_tokens, -held)
  end
end
"""

BOOKED = """
-- What was booked of the schedule of tokens, so that tokens that were not used are given back only as far as they can
-- still be used. The schedule is next free at the latest of: a call's start and the tokens of it and of all after it.
-- `booked` has such calls as 'start:how much earlier that would be than the schedule is free', the oldest first; one
-- behind which a later call stands at least as late is left out, and those within NEAR ms are kept as one. A call
-- larger than the burst, or one that found the schedule idle, stands at 0: nothing from before it can be used after it.
local NEAR = 50
local function booked_of(rate)
  local found = {}
  for start, less in string.gmatch(redis.call('HGET', rate, 'booked') or '', '([%d.]+):([%d.]+)') do
    found[#found + 1] = {start, tonumber(less)}
  end
  return found
end
local function set_booked(rate, booked)
  local text = {}
  for i, each in ipairs(booked) do text[i] = each[1] .. ':' .. string.format('%.3f', each[2]) end
  redis.call('HSET', rate, 'booked', table.concat(text, ' '))
end
-- A call is booked at `start`, before which the schedule was free at `free`; returns when it is free afterwards.
local function book(rate, free, start, cost)
  local booked, less, name = {}, math.max(free - start, 0), string.format('%.3f', start)
  for _, each in ipairs(free > start and booked_of(rate) or {}) do
    if each[2] < less then booked[#booked + 1] = each end
  end
  local last = booked[#booked]
  if last and less - last[2] < NEAR then
    if tonumber(name) > tonumber(last[1]) then last[1] = name end
  else
    booked[#booked + 1] = {name, less}
  end
  set_booked(rate, booked)
  return math.max(free, start) + cost
end
-- Of a call that began at `start`, `ms` of the schedule were not used; returns when it is free now.
local function give_back(rate, free, start, ms)
  local booked, kept, back = booked_of(rate), {}, ms
  for _, each in ipairs(booked) do
    if tonumber(each[1]) > start + 0.0005 then back = math.min(back, each[2]) end
  end
  for _, each in ipairs(booked) do
    local later = tonumber(each[1]) > start + 0.0005
    kept[#kept + 1] = {each[1], later and each[2] - back or each[2] + ms - back}
  end
  set_booked(rate, kept)
  return free - back
end
"""

ACCEPTED = """
-- Calls that were not refused, weighed by how long before the latest start they began: `short` with a time constant of
-- 5 s, `long` of 60 s, for limits of a few calls a minute. `_since` is when each sum began. A call counts from its
-- start, so that a refusal finds those that are still under way counted; a refused one is taken out with its weight.
-- `open_end` is 1 when the latest start itself was refused.
local SHORT, LONG = 5000, 60000
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
-- Requests per minute that were accepted until the latest start; nil when fewer than `least` were. The sum of a steady
-- rate is half a call too large just after an accepted call and half a call too small just before one.
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
"""

LIFETIME = """
-- What is written lives for a minute after the last moment that it speaks of.
local function keep(key, last)
  local ms = math.ceil(math.max(last - now, 0) + 60000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
"""

DOUBTS = """
-- For so long no hint is believed after one was wrong. Calls that began within SAME_MOMENT may reach the provider in
-- another order than they began in: they say nothing of each other's hints.
local DOUBTED, SAME_MOMENT = 600000, 100
"""

SLOW_START = """
-- Slow start: while no limit is known, and after failures, so many calls may be in flight: `window`, at first two. It
-- grows by two with each call that was not refused, and fourfold in a second, because a refusal comes at once and an
-- answer may take long; but only while a quarter of it is in use. From WIDE on it holds nobody up. Calls that were in
-- flight when it began (`stuck`) are left out.
local FIRST, WIDE, SOON = 2, 250, 100
-- Returns the window, how much of it is in use, and `stuck`; nothing when it is open.
local function window_of(rate, flight)
  local known = redis.call('HMGET', rate, 'window', 'window_at', 'stuck')
  local window, at = tonumber(known[1]) or FIRST, tonumber(known[2]) or now
  if window >= WIDE then return end
  local flying = in_flight(flight)
  local stuck = math.min(tonumber(known[3]) or 0, flying)
  local used = flying - stuck
  if used * 4 >= window then window = window * 4 ^ (math.max(math.min(now - at, 1000), 0) / 1000) end
  return window, used, stuck
end
local function has_window(rate, some) return not some or redis.call('HEXISTS', rate, 'window') == 1 end
local function set_window(rate, window, stuck)
  redis.call('HSET', rate, 'window', window, 'window_at', now, 'stuck', stuck)
  keep(rate, now)
end
"""

COOLDOWNS = """
-- A breaker that failures opened, and a cooldown without a hint that followed another one, let one probe through at a
-- time until a call is answered: one a second, of a breaker ever fewer the longer it is open, one in 30 s at least.
-- Returns until when nobody else may start, how often in a row it cooled, whether it is probed, since when.
local function cooled(key, breaker)
  local cool = redis.call('HMGET', key, 'until', 'streak', 'hinted', 'probe', 'since')
  local free, streak, since = tonumber(cool[1]) or 0, tonumber(cool[2]) or 0, tonumber(cool[5]) or now
  local probing = streak >= 2 and (breaker or cool[3] == '0')
  if probing then
    local probe = tonumber(cool[4]) or 0
    local pause = breaker and math.min((probe - since) / 6, 30000) or 0
    free = math.max(free, probe + math.max(pause, 1000))
  end
  return free, streak, probing, since
end
"""

RECOVERY = """
-- A breaker that was open until a moment ago: its deployment starts slowly on each account. Calls that were under way
-- are not counted, because they may be stuck.
local function recover(rate, flight, breaker)
  local closed = tonumber(redis.call('HGET', breaker, 'closed'))
  if not closed or now - closed > 5000 or tonumber(redis.call('HGET', rate, 'recovers')) == closed then return end
  redis.call('HSET', rate, 'recovers', closed)
  set_window(rate, FIRST, in_flight(flight))
end
"""
