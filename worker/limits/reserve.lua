-- include: models/queue/parts/now.lua
-- include: models/limits/parts/flight.lua
-- include: models/limits/parts/day.lua
-- include: models/limits/parts/schedules.lua
-- include: worker/limits/parts/booked.lua
-- include: worker/limits/parts/accepted.lua
-- include: models/limits/parts/cooldowns.lua
-- include: worker/limits/parts/lifetime.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/recovery.lua
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
  local paced, longest_here, known, firm_rpm, firm_tpm, learned_since = true, longest
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
