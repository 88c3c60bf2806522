"""The limiter's Lua. Times are milliseconds of Redis' own clock, so that a fleet shares one; tests may pass another.

Every script begins with ARGV[1]: the time to use instead, or "". What they share is in `worker.limits.shared_lua`.
"""

from understudy.worker.limits.shared_lua import (
    ACCEPTED,
    BOOKED,
    COOLDOWNS,
    DAY,
    DOUBTS,
    FLIGHT,
    LIFETIME,
    RECOVERY,
    SCHEDULES,
    SLOW_START,
)
from understudy.worker.redis_scripts import NOW, Script

RESERVE = Script.of(
    NOW,
    FLIGHT,
    DAY,
    SCHEDULES,
    BOOKED,
    ACCEPTED,
    COOLDOWNS,
    LIFETIME,
    SLOW_START,
    RECOVERY,
    """
-- KEYS: per candidate rate, flight, the cooldowns of (account, model), account, (provider, model), and the day.
-- ARGV: time, worker, longest wait ms, calls that may be booked ahead however slow the limit is, the longest wait for
--       these ms, lease ms, tokens; then per candidate requests/min, tokens/min, most in flight, requests/day,
--       tokens/day (0: no limit).
-- Reserves for the candidate that can start first, when our own pacing lets it start within the longest wait.
-- Returns {candidate, wait ms, streak, start ms, ms of the schedule that a request took, number}; or {-1, when to ask
-- again,
-- what holds, candidate, since when it is cooled without an answer or paced by what refusals taught, 1 if the latter}:
-- again before the start that is free, so that
-- another is booked when its turn comes, unless the rate was only learned and would just be found too high sooner.
local worker, longest, calls, longest_slow = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms, tokens = tonumber(ARGV[6]), tonumber(ARGV[7])
local best, best_takes, best_start, best_hold, best_streak, best_since, best_longest, best_learned
for c = 0, #KEYS / 6 - 1 do
  local rate, flight = KEYS[c * 6 + 1], KEYS[c * 6 + 2]
  local rpm, tpm, most = tonumber(ARGV[c * 5 + 8]), tonumber(ARGV[c * 5 + 9]), tonumber(ARGV[c * 5 + 10])
  local start, hold, streaks = now, '', 0
  local function later(at, why) if at > start then start, hold = at, why end end
  local paced, known, longest_here, firm_rpm, firm_tpm, learned_since = true, nil, longest
  do
    local requests_free, tokens_free
    requests_free, tokens_free, rpm, tpm, known, firm_rpm, firm_tpm, learned_since = schedules(rate, rpm, tpm)
    if rpm > 0 then
      later(earliest(requests_free, 60000 / rpm), 'requests')
      if 60000 / rpm >= 1000 then
        later((tonumber(redis.call('HGET', rate, 'began')) or 0) + TIGHT * 60000 / rpm, 'requests')
      end
    end
    if tpm > 0 then later(earliest(tokens_free, tokens * 60000 / tpm), 'tokens') end
    local cost = math.max(rpm > 0 and 60000 / rpm or 0, tpm > 0 and tokens * 60000 / tpm or 0)
    if cost > SLOW then longest_here = math.max(longest, math.min(calls * cost, longest_slow)) end
  end
  if most > 0 and in_flight(flight) >= most then
    paced = false
    later(now + 100, 'in_flight')
  end
  recover(rate, flight, KEYS[c * 6 + 5])
  if has_window(rate, known) then
    local window, used, stuck = window_of(rate, flight)
    if window and window < WIDE and used >= math.floor(window) then
      paced = false
      later(now + SOON, 'starting')
    end
    if window then set_window(rate, window, stuck) end
  end
  local since = now
  for k = 3, 5 do
    local free, streak, _, began = cooled(KEYS[c * 6 + k], k == 5)
    if free > now then paced, since = false, math.min(since, began) end
    later(free, k == 5 and 'breaker' or 'cooldown')
    streaks = streaks + streak
  end
  local rpd, tpd = tonumber(ARGV[c * 5 + 11]), tonumber(ARGV[c * 5 + 12])
  local left, again = left_of_day(KEYS[c * 6 + 6], flight, start, rpd, tpd, tokens)
  if left == 0 then
    paced = false
    later(again, 'day')
  end
  local takes = paced and start - now <= longest_here
  if not best or (takes and not best_takes) or (takes == best_takes and start < best_start) then
    best, best_takes, best_start, best_hold, best_streak, best_since = c, takes, start, hold, streaks, since
    best_learned = (hold == 'requests' or hold == 'starting') and learned_since or nil
    best_longest = paced and firm_rpm + firm_tpm > 0 and longest_here or 0
  end
end
if not best_takes then
  local again = best_start - best_longest / 2
  return {-1, string.format('%.3f', again), best_hold, best, string.format('%.3f', best_learned or best_since),
    best_learned and 1 or 0}
end
local rpm, tpm = tonumber(ARGV[best * 5 + 8]), tonumber(ARGV[best * 5 + 9])
local rate = KEYS[best * 6 + 1]
local requests_free, tokens_free, cost
requests_free, tokens_free, rpm, tpm = schedules(rate, rpm, tpm)
cost = rpm > 0 and 60000 / rpm or 0
if cost > 0 then
  requests_free = math.max(requests_free, best_start) + cost
  redis.call('HSET', rate, 'requests', requests_free)
end
if tpm > 0 then
  tokens_free = book(rate, tokens_free, best_start, tokens * 60000 / tpm)
  redis.call('HSET', rate, 'tokens', tokens_free)
end
if cost >= 1000 and best_start == now then redis.call('HSET', rate, 'began', now) end
count_accepted(rate, best_start)
keep(rate, math.max(requests_free, tokens_free, best_start))
if tonumber(ARGV[best * 5 + 11]) + tonumber(ARGV[best * 5 + 12]) > 0 then
  count_in_day(KEYS[best * 6 + 6], best_start, tokens)
end
add_flight(KEYS[best * 6 + 2], worker, 1, lease_ms)
if best_streak > 0 then
  for k = 3, 5 do
    local key = KEYS[best * 6 + k]
    if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'probe', best_start) end
  end
end
return {best, string.format('%.3f', best_start - now), best_streak, string.format('%.3f', best_start),
  string.format('%.6f', cost), redis.call('HINCRBY', rate, 'number', 1)}
""",
)

STILL_HOLDS = Script.of(
    NOW,
    SCHEDULES,
    """
-- KEYS: cooldowns, rate. ARGV: time, ms of the schedule that the request took. A call that waited is about to start.
-- Returns -1 when what it is for was cooled meanwhile; else how many ms it must still wait, because at a slow limit the
-- call before it began late: there is no burst that makes up for it.
for k = 1, #KEYS - 1 do
  if (tonumber(redis.call('HGET', KEYS[k], 'until')) or 0) > now then return -1 end
end
local rate, cost = KEYS[#KEYS], tonumber(ARGV[2])
if cost < 1000 or redis.call('EXISTS', rate) == 0 then return 0 end
local early = (tonumber(redis.call('HGET', rate, 'began')) or 0) + TIGHT * cost - now
if early > 0 and early <= cost then return math.ceil(early) end
redis.call('HSET', rate, 'began', now)
return 0
""",
)

RELEASE = Script.of(
    NOW,
    FLIGHT,
    DAY,
    BOOKED,
    ACCEPTED,
    LIFETIME,
    SLOW_START,
    DOUBTS,
    """
-- KEYS: rate, flight, the cooldowns, and the day where it has a limit. ARGV: time, worker, lease ms, start ms, ms of
-- the schedule that a request took, 'answered', 'refused' or 'unmade', tokens used more than reserved, tokens/min,
-- tokens reserved, number.
-- A call that was never made gives its request back, less the part of its share of the schedule that went by, and
-- less what later calls that wait for their start have passed over: nobody can use that any more.
local rate, start, cost, ended = KEYS[1], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local tokens, tpm, number = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[10])
if ended == 'answered' and redis.call('HEXISTS', rate, 'window') == 1 then
  local window, used, stuck = window_of(rate, KEYS[2])
  if window and used * 4 >= window then set_window(rate, window + 2, stuck) end
end
add_flight(KEYS[2], ARGV[2], -1, tonumber(ARGV[3]))
if KEYS[6] then settle_in_day(KEYS[6], start, ended == 'answered', tokens, tonumber(ARGV[9])) end
if redis.call('EXISTS', rate) == 0 then return end
if ended ~= 'answered' then count_refused(rate, start) end
local known = redis.call('HMGET', rate, 'requests', 'tokens', 'latest', 'told_tokens', 'hint_from', 'hint_until',
  'answered')
if ended == 'answered' and not known[7] then redis.call('HSET', rate, 'answered', 1) end
-- A hint said that nothing would be accepted before its end, and a call that began in that time was.
local hinted = tonumber(known[6])
if ended == 'answered' and hinted and start > tonumber(known[5]) and start < hinted then
  for k = 3, 5 do
    if redis.call('HGET', KEYS[k], 'hinted') == '1' then redis.call('DEL', KEYS[k]) end
  end
  redis.call('HDEL', rate, 'hint_from', 'hint_until')
  redis.call('HSET', rate, 'hints_doubted_until', now + DOUBTED)
end
if ended == 'unmade' then
  for _, field in ipairs({'run_first', 'count_first'}) do
    local first = tonumber(redis.call('HGET', rate, field))
    if first and first <= number then redis.call('HINCRBYFLOAT', rate, field, 1) end
  end
end
if tpm == 0 then tpm = tonumber(known[4]) or 0 end
local requests_free, tokens_free, latest = tonumber(known[1]), tonumber(known[2]), tonumber(known[3]) or 0
if ended == 'unmade' and requests_free then
  local back = math.max(cost - math.max(now - start, 0), 0)
  local passed = start < latest - 0.001 and latest + cost or 0
  redis.call('HSET', rate, 'requests', math.min(requests_free, math.max(requests_free - back, passed)))
  if math.abs((tonumber(redis.call('HGET', rate, 'began')) or 0) - start) < 0.01 then
    redis.call('HDEL', rate, 'began')
  end
end
if tpm > 0 and tokens ~= 0 and tokens_free then
  local ms = tokens * 60000 / tpm
  tokens_free = ms < 0 and give_back(rate, tokens_free, start, -ms) or tokens_free + ms
  redis.call('HSET', rate, 'tokens', tokens_free)
  keep(rate, tokens_free)
end
""",
)

TOLD = Script.of(
    NOW,
    ACCEPTED,
    LIFETIME,
    """
-- KEYS: rate. ARGV: time; then for requests and for tokens: limit (0: not told), remaining (-1: not told), ms to the
-- reset, ms of the period.
-- The limit becomes the rate. Where the first calls ran without one, the schedule's burst is taken. When less remains
-- than we used up ourselves, others use the account: what remains is spread over the time to the reset. A bucket of a
-- second is whole again too soon to tell. A daily limit sets no pace; once used up, nothing starts until the reset.
local rate = KEYS[1]
local latest, _, _, long, long_since = accepted_until(rate)
latest = latest or now
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
    if redis.call('HSET', rate, 'told_' .. what, per_minute) == 1 then
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
""",
)

OUTLOOK = Script.of(
    NOW,
    FLIGHT,
    DAY,
    SCHEDULES,
    COOLDOWNS,
    LIFETIME,
    SLOW_START,
    RECOVERY,
    """
-- KEYS as RESERVE. ARGV: time, horizon ms, tokens of a typical call; then per candidate as RESERVE.
-- Returns per candidate: calls that could start within the horizon (-1: no limit), ms it is cooled (0: it is not), what
-- holds further calls ('': nothing), the earliest start, ms for which it has only refused (0: it does not), the tokens
-- that the schedule has until the horizon, those of a second (0: no limit), which may be taken ahead of it, and the
-- calls that the other limits let start (-1: none of them holds any), and ms for which a learned rate paces it (0: it
-- does not).
local horizon, tokens = tonumber(ARGV[2]), tonumber(ARGV[3])
local seen = {}
for c = 0, #KEYS / 6 - 1 do
  local rpm, tpm, most = tonumber(ARGV[c * 5 + 4]), tonumber(ARGV[c * 5 + 5]), tonumber(ARGV[c * 5 + 6])
  local starts, requests_free, tokens_free, known = -1
  local _, learned_since
  requests_free, tokens_free, rpm, tpm, known, _, _, learned_since = schedules(KEYS[c * 6 + 1], rpm, tpm)
  local hold, first, others = '', now, -1
  local function at_most(n, why)
    if starts < 0 or n < starts then starts, hold = n, why end
    if why ~= 'tokens' and (others < 0 or n < others) then others = n end
  end
  local function room(theoretical, cost)
    return math.max(math.floor((now + horizon + math.max(1000 - cost, 0) - math.max(theoretical, now)) / cost) + 1, 0)
  end
  if rpm > 0 then
    at_most(room(requests_free, 60000 / rpm), 'requests')
    first = math.max(first, earliest(requests_free, 60000 / rpm))
  end
  if tpm > 0 and tokens > 0 then
    at_most(room(tokens_free, tokens * 60000 / tpm), 'tokens')
    first = math.max(first, earliest(tokens_free, tokens * 60000 / tpm))
  end
  if most > 0 then at_most(math.max(most - in_flight(KEYS[c * 6 + 2]), 0) + math.ceil(most / 4), 'in_flight') end
  recover(KEYS[c * 6 + 1], KEYS[c * 6 + 2], KEYS[c * 6 + 5])
  if has_window(KEYS[c * 6 + 1], known) then
    local window, used = window_of(KEYS[c * 6 + 1], KEYS[c * 6 + 2])
    local growth = 4 ^ (math.max(math.min(horizon, 1000) - 2 * SOON, 0) / 1000)
    if window then at_most(math.max(math.floor(window * growth) - used, 0), 'starting') end
  end
  local cooled_until, refusing_since = now, now
  for k = 3, 5 do
    local free, _, probing, since = cooled(KEYS[c * 6 + k], k == 5)
    if free > cooled_until then cooled_until, hold = free, k == 5 and 'breaker' or 'cooldown' end
    if probing then at_most(math.max(math.floor(horizon / 1000), 1), 'cooldown') end
    if probing or free > now then refusing_since = math.min(refusing_since, since) end
  end
  local rpd, tpd = tonumber(ARGV[c * 5 + 7]), tonumber(ARGV[c * 5 + 8])
  local left, again = left_of_day(KEYS[c * 6 + 6], KEYS[c * 6 + 2], math.max(first, cooled_until), rpd, tpd, tokens)
  if left and cooled_until <= now then at_most(left, 'day') end
  if left == 0 and again > cooled_until then cooled_until, hold = again, 'day' end
  seen[#seen + 1] = starts
  seen[#seen + 1] = math.ceil(cooled_until - now)
  seen[#seen + 1] = hold
  seen[#seen + 1] = string.format('%.0f', math.max(first, cooled_until))
  seen[#seen + 1] = math.ceil(now - refusing_since)
  seen[#seen + 1] = tpm > 0 and math.floor((now + horizon - math.max(tokens_free, now)) * tpm / 60000) or 0
  seen[#seen + 1] = math.ceil(tpm / 60)
  seen[#seen + 1] = others
  seen[#seen + 1] = learned_since and math.max(math.ceil(now - learned_since), 1) or 0
end
return seen
""",
)

BEAT = Script.of(
    NOW,
    """
-- KEYS: flights. ARGV: time, worker, lease ms; then this worker's true count for each. Fields of dead workers go.
local lease_ms = tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2], string.format('%d|%.0f', tonumber(ARGV[i + 3]), now + lease_ms))
  redis.call('PEXPIRE', key, lease_ms * 20)
  local fields = redis.call('HGETALL', key)
  for j = 2, #fields, 2 do
    if tonumber(string.match(fields[j], '|([%d.]+)$')) < now - lease_ms * 20 then
      redis.call('HDEL', key, fields[j - 1])
    end
  end
end
""",
)
