-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: models/limits/parts/rates.lua
-- include: models/limits/parts/cooldowns.lua
-- include: worker/limits/parts/candidates.lua
-- include: worker/limits/parts/day_count.lua
-- include: worker/limits/parts/booked.lua
-- include: worker/limits/parts/accepted.lua
-- include: worker/limits/parts/slow_start.lua
-- Reserves a call on the candidate that can start first, if our own pacing lets it start within the longest wait.
-- KEYS: the candidates' (see `candidates.lua`).
-- ARGV: time, worker, longest wait (ms), calls that may be booked ahead however slow the limit is, the longest wait for
--   these (ms), lease (ms), tokens of the call; then the candidates' limits.
-- Returns, where candidates are counted from 0,
--   reserved: {candidate, wait (ms), cooldowns in a row without an answer, start (ms), ms that it took of the schedule
--     of requests, number of the call}
--   refused: {-1, when to ask again (ms), what holds the call, candidate, since when (ms), 0 or 1}: since when nothing
--     is answered, or (1) a rate that refusals taught has been pacing it
-- The time to ask again is before the start that is free, so that the next call is booked when its turn comes, except
-- where the rate was only learned and would just be found too high sooner.
local worker, longest, calls, longest_slow = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms, tokens = tonumber(ARGV[6]), tonumber(ARGV[7])

-- When the candidate lets the call start, and what it waits for until then. `paced`: nothing but its schedules.
local function outlook_of(at)
  local start, hold, streak, paced = now, '', 0, true
  local function later(free, why) if free > start then start, hold = free, why end end
  local requests_free, tokens_free, rpm, tpm, known, firm_rpm, firm_tpm, learned_since =
    schedules(at.rate, at.rpm, at.tpm)
  if rpm > 0 then
    later(earliest(requests_free, 60000 / rpm), 'requests')
    if 60000 / rpm >= 1000 then
      later((tonumber(redis.call('HGET', at.rate, 'began')) or 0) + TIGHT * 60000 / rpm, 'requests')
    end
  end
  if tpm > 0 then later(earliest(tokens_free, tokens * 60000 / tpm), 'tokens') end
  local cost = math.max(rpm > 0 and 60000 / rpm or 0, tpm > 0 and tokens * 60000 / tpm or 0)
  local longest_here = cost > SLOW and math.max(longest, math.min(calls * cost, longest_slow)) or longest
  if at.most > 0 and leased(at.flight) >= at.most then
    paced = false
    later(now + 100, 'in_flight')
  end
  recover(at.rate, at.flight, at.breaker)
  if has_window(at.rate, known) then
    local window, used, stuck = window_of(at.rate, at.flight)
    if window and window < WIDE and used >= math.floor(window) then
      paced = false
      later(now + SOON, 'starting')
    end
    if window then set_window(at.rate, window, stuck) end
  end
  local since = now
  for _, key in ipairs(at.cooldowns) do
    local free, in_a_row, _, began = cooled(key, key == at.breaker)
    if free > now then paced, since = false, math.min(since, began) end
    later(free, key == at.breaker and 'breaker' or 'cooldown')
    streak = streak + in_a_row
  end
  local left, again = left_of_day(at.day, at.flight, start, at.rpd, at.tpd, tokens)
  if left == 0 then
    paced = false
    later(again, 'day')
  end
  return {
    start = start, hold = hold, streak = streak, since = since,
    takes = paced and start - now <= longest_here,
    learned_since = (hold == 'requests' or hold == 'starting') and learned_since or nil,
    asked_ahead = paced and firm_rpm + firm_tpm > 0 and longest_here or 0,
  }
end

local best, at
for c, candidate in ipairs(candidates(8)) do
  local found = outlook_of(candidate)
  if not best or found.takes and not best.takes or found.takes == best.takes and found.start < best.start then
    best, at = found, candidate
    best.index = c - 1
  end
end
if not best.takes then
  return {-1, string.format('%.3f', best.start - best.asked_ahead / 2), best.hold, best.index,
    string.format('%.3f', best.learned_since or best.since), best.learned_since and 1 or 0}
end

local start, rate = best.start, at.rate
local requests_free, tokens_free, rpm, tpm = schedules(rate, at.rpm, at.tpm)
local cost = rpm > 0 and 60000 / rpm or 0
if cost > 0 then
  requests_free = math.max(requests_free, start) + cost
  redis.call('HSET', rate, 'requests', requests_free)
end
if tpm > 0 then
  tokens_free = book(rate, tokens_free, start, tokens * 60000 / tpm)
  redis.call('HSET', rate, 'tokens', tokens_free)
end
if cost >= 1000 and start == now then redis.call('HSET', rate, 'began', now) end
count_accepted(rate, start)
keep(rate, math.max(requests_free, tokens_free, start))
if at.rpd + at.tpd > 0 then count_in_day(at.day, start, tokens) end
add_leased(at.flight, worker, 1, lease_ms)
if best.streak > 0 then
  for _, key in ipairs(at.cooldowns) do
    if redis.call('EXISTS', key) == 1 then redis.call('HSET', key, 'probe', start) end
  end
end
return {best.index, string.format('%.3f', start - now), best.streak, string.format('%.3f', start),
  string.format('%.6f', cost), redis.call('HINCRBY', rate, 'number', 1)}
