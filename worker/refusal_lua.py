"""The Lua that judges refusals: what they are evidence for, how long a deployment rests, which pace follows."""

REST = """
-- ARGV as COOL. Refusals of calls that were under way when the cooldown began do not count as a new one; calls that
-- began before the breaker was closed, or before its latest probe, prove nothing. A breaker rests a third of the time
-- for which it is open. Returns its end and whether it is a new one; nothing when the call proves nothing.
local function rest(key, hint)
  local cool = redis.call('HMGET', key, 'until', 'streak', 'since', 'closed', 'probe')
  local old, streak = tonumber(cool[1]) or 0, tonumber(cool[2]) or 0
  local since = streak > 0 and tonumber(cool[3]) or now
  local newer = math.max(tonumber(cool[4]) or 0, ARGV[7] == '1' and streak >= 2 and tonumber(cool[5]) or 0)
  if (tonumber(ARGV[6]) or now) < newer - 1 then return end
  local free, anew = old, old <= now
  if anew then
    local first, longest = tonumber(ARGV[3]), tonumber(ARGV[4])
    local pause = ARGV[7] == '1' and math.max((now - since) / 3, first) or first * 2 ^ streak
    free = now + (hint or math.min(pause, longest))
    streak = math.max(streak + 1, ARGV[8] == '1' and 2 or 1)
  elseif hint then
    free = math.max(old, now + hint)
  end
  if free > old then
    redis.call('HSET', key, 'until', string.format('%.0f', free), 'streak', streak, 'hinted', hint and 1 or 0,
      'reason', ARGV[5], 'since', string.format('%.0f', since))
    redis.call('PEXPIRE', key, math.ceil(free - now + 120000))
  end
  return free, anew, streak
end
"""

PACE = """
-- The rate that was too high. Where a limit is known that was nearly kept, a call came a little too soon: a fiftieth
-- less. Else it is what was accepted; where too few were to tell, half of what it was, or `unknown`. The provider has
-- nothing left at this moment, so it begins without a burst at `free`, and grows `later` than that.
local function slow_down(rate, free, accepted, anew, unknown, later)
  local requests_free, tokens_free, rpm, tpm, _, firm_rpm, firm_tpm =
    schedules(rate, tonumber(ARGV[9]), tonumber(ARGV[10]))
  local learned
  if firm_tpm > 0 and firm_rpm == 0 then
    if anew then
      redis.call('HSET', rate, 'brake_tokens', 0.98 * tpm, 'brake_tokens_until', free + 5000,
        'tokens', math.max(tokens_free, free + 1000))
    end
  else
    if firm_rpm > 0 and (not accepted or accepted >= 0.8 * rpm) then
      learned = anew and 0.98 * rpm
    else
      learned = accepted and 0.98 * accepted or anew and (rpm > 0 and rpm / 2 or unknown)
    end
    if learned then
      learned = math.max(learned, 1)
      requests_free = math.max(requests_free, free - 1 + math.max(1000 - 60000 / learned, 0))
      redis.call('HSET', rate, 'learned', learned, 'learned_at', free + later(learned), 'requests', requests_free)
      redis.call('HSETNX', rate, 'learned_since', now)
    end
  end
  keep(rate, math.max(free, requests_free, tokens_free))
  return learned, firm_rpm
end
-- After a rest. Where nobody said how long it must be, few calls try again at first.
local function pace_after_rest(rate, flight, free, anew, hint, unknown, later)
  local learned, firm_rpm = slow_down(rate, free, accepted_per_minute(rate), anew, unknown, later)
  if learned and firm_rpm == 0 and not hint then
    if anew then set_window(rate, FIRST, in_flight(flight)) end
  elseif learned then
    redis.call('HDEL', rate, 'window')
  end
end
"""

EVIDENCE = """
-- What a refusal is evidence for. Calls have numbers in the order in which they began.
--
-- Rest: nothing is accepted any more. Of the calls since the first refused one (`run_first`) all but a straggler were
-- refused (`run`), and more of them than chance explains. A hint is believed at once until something speaks against it.
-- A run that goes on behind a rest ('outlasts') is no chance, and is left out of the trial.
-- 'slow': the rate may be too high. It becomes what was accepted, and is kept there for a while, which is a trial.
-- 'pass': the rate does not matter. When in two trials one after the other the same share was refused although the rate
-- fell, that share is refused by chance (`chance`), and is expected from then on: until more are refused than that, or
-- until it is time to try again whether a lower rate helps.
local UNLIKELY, ALIKE, LASTING = math.log(1e-5), 2, 6
local BELIEVED, BELIEVED_MS = 15, 30000
-- Calls a minute: where too few were accepted to tell, and below which two trials must have more refusals in them.
local UNTRIED, FEW = 1200, 240
local function trial_ms(learned) return math.max(1000, math.min(20 * 60000 / learned, 10000)) end
local function set_trial_until(rate, at)
  local learned = tonumber(redis.call('HGET', rate, 'learned'))
  redis.call('HSET', rate, 'trial_until', at + (learned and trial_ms(learned) or 5000) + 2000)
end
-- Whether two shares, of so many calls each, may be the same.
local function alike(a, n, b, m)
  local both = (a * n + b * m) / (n + m)
  return math.abs(a - b) <= ALIKE * math.sqrt(both * (1 - both) * (1 / n + 1 / m)) + 1e-9
end
local function longest_by_chance(share) return math.ceil(UNLIKELY / math.log(math.min(share, 0.95))) end
-- Returns 'slow' or 'pass', the rate that was accepted, whether the scope must rest, and how sure that is: 'outlasts',
-- 'doubtful' or nil.
local function judged(rate, number, hint)
  local known, names = {}, {'run_first', 'run', 'run_rested', 'run_counted', 'trial', 'trial_until', 'trial_first',
    'trial_refused', 'trial_share', 'trial_tried', 'trial_rate', 'trial_began', 'chance', 'chance_until', 'learned',
    'window', 'number', 'told_requests', 'told_tokens'}
  for i, value in ipairs(redis.call('HMGET', rate, unpack(names))) do known[names[i]] = tonumber(value) end
  local latest, learned, chance, trial = known.number, known.learned, known.chance, known.trial
  if not latest then return 'pass', nil, true end -- Redis was emptied: nothing is known of the others
  local firm = known.told_requests or known.told_tokens or tonumber(ARGV[9]) + tonumber(ARGV[10]) > 0
  local starting = not learned and not firm and (known.window or FIRST) < WIDE
  local watched = known.chance_until and now <= known.chance_until
  if known.chance_until and not watched then
    trial = nil
    redis.call('HDEL', rate, 'chance_until')
  end

  local first, run, rested, counted = known.run_first, known.run, known.run_rested, known.run_counted or 0
  if first and run + 1 >= 0.95 * (number - first + 1) - 1 then
    first, run = math.min(first, number), run + 1
  else
    first, run, rested, counted = number, 1, 0, 0
  end
  local from, refused = known.trial_first, trial and known.trial_refused or 0
  local n = trial and number - from or 0
  if rested < 0 or rested > 0 and number > rested and run >= LASTING then
    if n > 0 then redis.call('HSET', rate, 'trial_first', from + 1 + counted, 'trial_refused', refused - counted) end
    redis.call('HSET', rate, 'run_first', first, 'run', run, 'run_rested', -1, 'run_counted', 0)
    if watched then redis.call('HDEL', rate, 'chance', 'chance_until', 'trial', 'trial_share') end
    return 'pass', nil, true, 'outlasts'
  end

  local tried, failed = trial and math.max(first - from, 0) or 0, refused - counted
  local share = math.max(chance or 0, tried >= 5 and failed / tried or trial and known.trial_share or 0)
  local limited = trial and not watched and now > known.trial_until and refused == 0
  local doubtful = trial and not limited and tried > failed or starting and number > run
  local longest = share > 0 and longest_by_chance(share) or hint and not doubtful and 1 or starting and 3 or 2
  local rests, how = run >= longest, doubtful and 'doubtful' or nil
  if trial and n > 0 then counted = counted + 1 end
  redis.call('HSET', rate, 'run_first', first, 'run', run, 'run_rested', rests and latest or rested,
    'run_counted', counted)

  local function begin(share_before, accepted)
    redis.call('HSET', rate, 'trial', now, 'trial_first', latest, 'trial_refused', 0, 'run_counted', 0)
    if share_before then
      redis.call('HSET', rate, 'trial_share', share_before, 'trial_tried', n)
    else
      redis.call('HDEL', rate, 'trial_share', 'chance_until')
      redis.call('HSET', rate, 'trial_began', now, 'trial_rate', starting and 0 or accepted or 0)
    end
    return 'slow', accepted, rests, how
  end
  local function begin_first()
    local seen = accepted_per_minute(rate)
    if seen and watched then seen = seen / (1 - chance) end
    return begin(nil, starting and math.max(seen or 0, UNTRIED) or seen)
  end

  if not trial or limited then
    if limited then redis.call('HDEL', rate, 'chance') end
    return begin_first()
  end
  if n <= 0 then return 'pass', nil, rests, how end
  if watched then
    refused = refused + 1
    if n >= 10 and refused - n * chance > 4 * math.sqrt(n * chance * (1 - chance)) + 2 then return begin_first() end
    if n >= 100 then
      chance = (chance + refused / n) / 2
      redis.call('HSET', rate, 'trial_first', latest, 'trial_refused', 0, 'run_counted', 0, 'chance', chance)
    else
      redis.call('HSET', rate, 'trial_refused', refused)
    end
    return 'pass', nil, rests, how
  end

  local over = now > known.trial_until
  if over then
    n = math.max(math.min(n, (known.trial_until - trial) * (learned or UNTRIED) / 60000), refused)
  else
    refused = refused + 1
  end
  redis.call('HSET', rate, 'trial_refused', refused)
  if not over and (now < trial + 1000 or n < 10 or refused < 2 and n < 20) then return 'pass', nil, rests, how end
  share = refused / n
  local before, of = known.trial_share, known.trial_tried
  local slow = (learned or UNTRIED) < FEW
  if not before or not alike(share, n, before, of) or slow and refused + before * of < LASTING then
    local seen = now - trial > SHORT and accepted_per_minute(rate)
    return begin(share, seen or (learned or UNTRIED) * (1 - share))
  end
  share = math.min(share, 0.95)
  redis.call('HSET', rate, 'chance', share, 'trial', now, 'trial_first', latest, 'trial_refused', 0, 'run_counted', 0,
    'chance_until', now + math.max(BELIEVED_MS, BELIEVED * (now - known.trial_began)))
  if known.trial_rate > 0 then -- nothing speaks against a higher one any more: it grows as after half a minute of peace
    redis.call('HSET', rate, 'learned', known.trial_rate / (1 - share), 'learned_at', now - 30000)
  else
    redis.call('HDEL', rate, 'learned', 'learned_at', 'learned_since')
  end
  return 'pass', nil, rests and run >= longest_by_chance(share), how
end
"""
