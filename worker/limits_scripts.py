"""The limiter's Lua. Times are milliseconds of Redis' own clock, so that a fleet shares one; tests may pass another.

Every script begins with ARGV[1]: the time to use instead, or "".
"""

NOW = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
"""

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

SCHEDULES = """
-- GCRA: `theoretical` is when the virtual schedule is next free; a second's worth may be taken ahead of it.
local function earliest(theoretical, cost)
  return math.max(now, theoretical - math.max(1000 - cost, 0))
end
-- What is known of a rate: when its schedules are next free, and requests per minute, configured or learned. What was
-- learned from a refusal grows by 1% a second, so that a limit that was raised is found.
local function schedules(key, rpm)
  local known = redis.call('HMGET', key, 'requests', 'tokens', 'learned', 'learned_at')
  local learned = tonumber(known[3])
  if learned then
    learned = learned * 1.01 ^ ((now - tonumber(known[4])) / 1000)
    if rpm == 0 or learned < rpm then rpm = learned end
  end
  return tonumber(known[1]) or 0, tonumber(known[2]) or 0, rpm
end
"""

ACCEPTED = """
-- Calls that were started and not refused, decaying with a time constant of five seconds; `since` is when they began.
-- A call counts from its start, so that a refusal finds those that are still under way counted.
local function decayed(key)
  local known = redis.call('HMGET', key, 'accepted', 'accepted_at', 'since')
  local at = tonumber(known[2])
  if not at or now - at > 5000 then return 0, now end
  return tonumber(known[1]) * math.exp((at - now) / 5000), tonumber(known[3])
end
local function count_accepted(key, by)
  local accepted, since = decayed(key)
  redis.call('HSET', key, 'accepted', math.max(accepted + by, 0), 'accepted_at', now, 'since', since)
  if redis.call('PTTL', key) < 60000 then redis.call('PEXPIRE', key, 60000) end
end
local function learn(key)
  local accepted, since = decayed(key)
  local per_s = accepted / (5 * (1 - math.exp(-math.max(now - since, 1000) / 5000)))
  redis.call('HSET', key, 'learned', math.max(0.98 * 60 * per_s, 1), 'learned_at', now)
end
"""

COOLDOWNS = """
-- A cooldown without a hint that ended after several in a row lets one probe through each second.
local function cooled(key)
  local cool = redis.call('HMGET', key, 'until', 'streak', 'hinted', 'probe')
  local free, streak = tonumber(cool[1]) or 0, tonumber(cool[2]) or 0
  if streak >= 2 and cool[3] == '0' then free = math.max(free, (tonumber(cool[4]) or 0) + 1000) end
  return free, streak
end
"""

RESERVE = (
    NOW
    + FLIGHT
    + SCHEDULES
    + ACCEPTED
    + COOLDOWNS
    + """
-- KEYS: per candidate rate, flight, and the cooldowns of (account, model), account, (provider, model).
-- ARGV: time, worker, longest wait ms, lease ms, tokens; then per candidate requests/min, tokens/min, most in flight
--       (0: no limit).
-- Reserves for the candidate that can start first, when our own pacing lets it start within the longest wait.
-- Returns {candidate, wait ms, streak}; or {-1, start ms, what holds, candidate}.
local worker, longest, lease_ms, tokens = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local best, best_takes, best_start, best_hold, best_streak
for c = 0, #KEYS / 5 - 1 do
  local rate, flight = KEYS[c * 5 + 1], KEYS[c * 5 + 2]
  local rpm, tpm, most = tonumber(ARGV[c * 3 + 6]), tonumber(ARGV[c * 3 + 7]), tonumber(ARGV[c * 3 + 8])
  local start, hold, streaks = now, '', 0
  local function later(at, why) if at > start then start, hold = at, why end end
  do
    local requests_free, tokens_free
    requests_free, tokens_free, rpm = schedules(rate, rpm)
    if rpm > 0 then later(earliest(requests_free, 60000 / rpm), 'requests') end
    if tpm > 0 then later(earliest(tokens_free, tokens * 60000 / tpm), 'tokens') end
  end
  if most > 0 and in_flight(flight) >= most then later(now + 100, 'in_flight') end
  local paced = hold ~= 'in_flight'
  for k = 3, 5 do
    local free, streak = cooled(KEYS[c * 5 + k])
    if free > now then paced = false end
    later(free, k == 5 and 'breaker' or 'cooldown')
    streaks = streaks + streak
  end
  local takes = paced and start - now <= longest
  if not best or (takes and not best_takes) or (takes == best_takes and start < best_start) then
    best, best_takes, best_start, best_hold, best_streak = c, takes, start, hold, streaks
  end
end
if not best_takes then
  return {-1, string.format('%.0f', best_start), best_hold, best}
end
local rpm, tpm = tonumber(ARGV[best * 3 + 6]), tonumber(ARGV[best * 3 + 7])
local rate = KEYS[best * 5 + 1]
local requests_free, tokens_free
requests_free, tokens_free, rpm = schedules(rate, rpm)
if rpm > 0 or tpm > 0 then
  if rpm > 0 then requests_free = math.max(requests_free, best_start) + 60000 / rpm end
  if tpm > 0 then tokens_free = math.max(tokens_free, best_start) + tokens * 60000 / tpm end
  redis.call('HSET', rate, 'requests', requests_free, 'tokens', tokens_free)
  redis.call('PEXPIRE', rate, math.ceil(math.max(requests_free, tokens_free) - now + 60000))
end
count_accepted(rate, 1)
add_flight(KEYS[best * 5 + 2], worker, 1, lease_ms)
if best_streak > 0 then
  for k = 3, 5 do
    local key = KEYS[best * 5 + k]
    if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'probe', best_start) end
  end
end
return {best, string.format('%.0f', best_start - now), best_streak}
"""
)

RELEASE = (
    NOW
    + FLIGHT
    + ACCEPTED
    + """
-- KEYS: rate, flight. ARGV: time, worker, lease ms, requests to give back, tokens used more than reserved,
-- requests/min, tokens/min, whether the provider refused the call (or it was never made).
if ARGV[8] == '1' then count_accepted(KEYS[1], -1) end
add_flight(KEYS[2], ARGV[2], -1, tonumber(ARGV[3]))
local requests, tokens, rpm, tpm = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if redis.call('EXISTS', KEYS[1]) == 1 then
  if rpm > 0 and requests > 0 then redis.call('HINCRBYFLOAT', KEYS[1], 'requests', -requests * 60000 / rpm) end
  if tpm > 0 and tokens ~= 0 then redis.call('HINCRBYFLOAT', KEYS[1], 'tokens', tokens * 60000 / tpm) end
end
"""
)

COOL = (
    NOW
    + ACCEPTED
    + """
-- KEYS: cooldown, and the rate that was too high, if that is why.
-- ARGV: time, how long ms ("" for doubling), first ms, longest doubling ms, reason.
-- Refusals of calls that were under way when the cooldown began do not count as a new one. Returns its end.
local cool = redis.call('HMGET', KEYS[1], 'until', 'streak')
local old, streak = tonumber(cool[1]) or 0, tonumber(cool[2]) or 0
local hint = tonumber(ARGV[2])
local length = hint or math.min(tonumber(ARGV[3]) * 2 ^ streak, tonumber(ARGV[4]))
if KEYS[2] then learn(KEYS[2]) end
if old > now then
  if not hint or now + hint <= old then return string.format('%.0f', old) end
else
  streak = streak + 1
end
local free = now + length
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', free), 'streak', streak, 'hinted', hint and 1 or 0,
  'reason', ARGV[5])
redis.call('PEXPIRE', KEYS[1], math.ceil(length + 120000))
return string.format('%.0f', free)
"""
)

ANSWERED = (
    NOW
    + """
-- KEYS: cooldowns. ARGV: time. A call was answered: what cooled before and has ended is over.
for _, key in ipairs(KEYS) do
  local free = tonumber(redis.call('HGET', key, 'until') or 0)
  if free <= now then redis.call('DEL', key) end
end
"""
)

OUTLOOK = (
    NOW
    + FLIGHT
    + SCHEDULES
    + COOLDOWNS
    + """
-- KEYS as RESERVE. ARGV: time, horizon ms, tokens of a typical call; then per candidate as RESERVE.
-- Returns per candidate: calls that could start within the horizon (-1: no limit), ms it is cooled (0: it is not).
local horizon, tokens = tonumber(ARGV[2]), tonumber(ARGV[3])
local seen = {}
for c = 0, #KEYS / 5 - 1 do
  local rpm, tpm, most = tonumber(ARGV[c * 3 + 4]), tonumber(ARGV[c * 3 + 5]), tonumber(ARGV[c * 3 + 6])
  local starts, requests_free, tokens_free = -1
  requests_free, tokens_free, rpm = schedules(KEYS[c * 5 + 1], rpm)
  local function at_most(n) if starts < 0 or n < starts then starts = n end end
  local function room(theoretical, cost)
    return math.max(math.floor((now + horizon + math.max(1000 - cost, 0) - math.max(theoretical, now)) / cost) + 1, 0)
  end
  if rpm > 0 then at_most(room(requests_free, 60000 / rpm)) end
  if tpm > 0 and tokens > 0 then at_most(room(tokens_free, tokens * 60000 / tpm)) end
  if most > 0 then at_most(math.max(most - in_flight(KEYS[c * 5 + 2]), 0) + math.ceil(most / 4)) end
  local cooled_until = now
  for k = 3, 5 do cooled_until = math.max(cooled_until, (cooled(KEYS[c * 5 + k]))) end
  seen[#seen + 1] = starts
  seen[#seen + 1] = math.ceil(cooled_until - now)
end
return seen
"""
)

BEAT = (
    NOW
    + """
-- KEYS: flights. ARGV: time, worker, lease ms; then this worker's true count for each.
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2], string.format('%d|%.0f', ARGV[i + 3], now + ARGV[3]))
  redis.call('PEXPIRE', key, ARGV[3] * 20)
end
"""
)
