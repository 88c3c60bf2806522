-- include: models/queue/parts/now.lua
-- include: models/limits/parts/flight.lua
-- include: models/limits/parts/schedules.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/accepted.lua
-- include: worker/limits/parts/hint_doubts.lua
-- include: worker/limits/parts/pace.lua
-- What a refusal is evidence for. Calls have numbers in the order in which they began.
--
-- A limit accepts as many calls a minute however many are asked; chance refuses the same share. So when two are refused
-- (`count_first`, `count_refused`) the pace goes below what was accepted for a trial: then a limit refuses next to
-- nothing, and chance as much as before. The trial ends when one of the two is a hundred times as likely as the other.
-- A limit: the pace is what was accepted, and grows from there. Chance: nothing paces any more, and that share is
-- expected, until more are refused than that, or until it is time to try again.
--
-- Rest: nothing is accepted any more. Of the calls since the first refused one (`run_first`) all but a straggler were
-- refused (`run`), and more of them than the share that is refused explains. A hint is believed at once, unless one was
-- wrong before (a call that began later was answered, or those after it were refused as well), or others are refused
-- without a rest.
local UNLIKELY, HARDLY, SURE = math.log(1e-4), math.log(1e-7), math.log(100)
-- A share that is refused by chance is believed fifteen times as long as it took to find out, half a minute at least.
local BELIEVED, BELIEVED_MS, PEACE = 15, 30000, 30000
-- So many calls tell a share; so many keep to a rate that was found too high by one before it may grow again.
local ENOUGH, HELD, SILENT = 20, 100, 4
-- Of `n` calls `k` were refused: how far another count of as many may be from it.
local function spread(k, n) return math.sqrt(k * (n - k) / n) end
-- How many times as likely, as a logarithm, `k` refusals among `n` calls are by chance as by a limit that is kept.
local function by_chance(share, k, n)
  local few = math.min(share / 4, 0.05)
  return k * math.log(share / few) + (n - k) * math.log((1 - share) / (1 - few))
end
-- How long a trial lasts in which nothing more is refused.
local function rest_of_trial(share, told, pace)
  local calls = (told + SURE) / -by_chance(share, 0, 1)
  return math.max(math.min(calls * 60000 / pace, PEACE / 2), 0)
end
local function longest_by_chance(share, surprise)
  return math.max(math.ceil(surprise / math.log(math.max(math.min(share, 0.95), 0.001))), 3)
end
local function begin_count(rate, first)
  redis.call('HDEL', rate, 'trial_share', 'chance', 'chance_until', 'trial_began')
  redis.call('HSET', rate, 'count_first', first, 'count_refused', 0, 'count_at', now)
end
-- `k` of `n` calls were refused, `accepted` a minute were not; calls after the latest are paced below that. `how` well
-- it is known: nil (measured), 'by count' (of few calls: rather too low) or 'rough' (it may grow fast). Where only
-- tokens have a limit no rate of requests is learned, because prompts differ in size.
local function begin_trial(rate, of, k, n, accepted, how)
  local share = math.min((k - spread(k, n)) / n, 0.95)
  local pace = 0.9 * accepted
  if how == 'by count' then pace = pace * math.max(1 - spread(k, n) / math.max(n - k, 1), 0.5) end
  pace = math.max(pace, 1)
  local ends = latest_start(rate) + rest_of_trial(share, 0, pace)
  local learned = of.only_tokens and NO_LIMIT or 0.98 * accepted
  set_learned(rate, learned, now, ends, how == 'rough')
  redis.call('HDEL', rate, 'chance', 'chance_until', 'untried')
  redis.call('HSET', rate, 'count_first', of.number + 1, 'count_refused', 0, 'count_at', now,
    'trial_share', share, 'trial_pace', pace, 'trial_until', ends, 'trial_refused', k, 'trial_calls', n)
  redis.call('HSETNX', rate, 'trial_began', now)
end
-- Nothing is known of a limit, and much is refused: so many calls a minute until it is known which share.
local function begin_untried(rate, of)
  begin_count(rate, of.number + 1)
  redis.call('HSET', rate, 'untried', 1)
  set_learned(rate, math.max(of.accepted or 0, UNTRIED), now, now + PEACE)
end
-- What is known, as numbers, and what of it is measured now.
local FIELDS = {'number', 'window', 'run_first', 'run', 'quiet', 'run_rested', 'run_after', 'count_first',
  'count_refused', 'count_at', 'trial_share', 'trial_pace', 'trial_until', 'trial_refused', 'trial_calls',
  'trial_began', 'chance', 'chance_until', 'untried', 'learned', 'learned_at', 'grows_fast', 'proven', 'hint_until',
  'hints_doubted_until', 'answered'}
local function known_of(rate)
  local of, _ = {}
  for i, value in ipairs(redis.call('HMGET', rate, unpack(FIELDS))) do of[FIELDS[i]] = tonumber(value) end
  _, of.tokens_free, of.rpm, of.tpm, _, of.firm_rpm, of.firm_tpm =
    schedules(rate, tonumber(ARGV[9]), tonumber(ARGV[10]))
  of.only_tokens = of.firm_tpm > 0 and of.firm_rpm == 0
  of.starting = not of.learned and of.firm_rpm + of.firm_tpm == 0 and (of.window or FIRST) < WIDE
  of.accepted = accepted_per_minute(rate, 3)
  return of
end
-- The run of refusals: returns 'herd' for a call of before the latest rest, 'unknown' while the one before it may still
-- be answered, 'outlasts' when the run goes on behind a rest.
local function follow_run(rate, of, number)
  local rested, after = of.run_rested or 0, of.run_after or 0
  if rested > 0 and number <= rested then
    redis.call('HSET', rate, 'run_first', math.min(of.run_first, number), 'run', of.run + 1)
    return 'herd'
  elseif rested > 0 and number - rested == after + 2 then
    redis.call('HSET', rate, 'run_after', after + 1)
    return 'unknown'
  end
  local goes_on = rested > 0 and number - rested <= after + 1
  if goes_on or rested == 0 and of.run_first and of.run + 1 >= 0.95 * (number - of.run_first + 1) - 1 then
    of.run_first, of.run = math.min(of.run_first, number), of.run + 1
  else
    of.quiet = math.max(number - (of.run_first or 1) - (of.run or 0), 0)
    of.run_first, of.run = number, 1
  end
  return goes_on and 'outlasts' or nil
end
-- Of the calls since `count_first` (`n`), `refused` were. A count begins again after half a minute, when the pace
-- has grown since without a refusal, when a trial ended with next to no refusals, and when a rate that was held because
-- of a single one was kept.
local function count_call(rate, of, number, began)
  local kept
  if of.trial_share then
    kept = began > of.trial_until and by_chance(of.trial_share, of.count_refused, number - of.count_first) <= -SURE
  else
    kept = of.count_refused == 1 and of.learned and not of.untried and began > of.learned_at
  end
  local grew = of.count_refused == 0 and of.learned and of.rpm > 1.1 * of.learned
  local stale = not of.count_first or not of.trial_share and not of.chance and (grew or now - of.count_at > PEACE)
  if stale or kept then
    of.count_first = number - math.min(number - (of.count_first or 0), (of.accepted or 0) / 120)
    of.count_refused, of.count_at, of.trial_share, of.chance = 0, now, nil, nil
    begin_count(rate, of.count_first)
    if kept then
      redis.call('HSET', rate, 'proven', 1)
      of.proven = 1
    end
  end
  of.n, of.refused = number - of.count_first + 1, of.count_refused or 0
  if of.n >= 1 then
    of.refused = of.refused + 1
    of.n = math.max(of.n, of.refused)
    redis.call('HSET', rate, 'count_refused', of.refused)
  end
  of.before, of.failed = math.max(of.run_first - of.count_first, 0), math.max(of.refused - of.run, 0)
end
local function doubts_hints(rate, of, began)
  if of.run > 2 and of.hint_until and began > of.hint_until then
    redis.call('HSET', rate, 'hints_doubted_until', now + DOUBTED)
    redis.call('HDEL', rate, 'hint_from', 'hint_until')
    return true
  end
  return of.chance or of.trial_share or of.untried or of.failed > 0 and of.before > of.failed
    or (of.hints_doubted_until or 0) > now
end
-- So many in a row are more than the share that is refused explains. Few calls tell little of that share, but when
-- none of the calls before the run (`quiet`) were refused it is small.
local function is_no_chance(of)
  local usual = math.max((of.failed + 1) / (of.before + 3), of.before < ENOUGH and 0.6 or 0)
  local longest
  if of.chance then
    longest = longest_by_chance(math.max(of.chance, usual) + 0.1, HARDLY)
  elseif of.trial_share and of.trial_calls >= ENOUGH then
    local known = math.max(of.trial_refused / of.trial_calls, of.before >= ENOUGH and usual or 0)
    longest = longest_by_chance(known + 0.1, UNLIKELY)
  else
    local surprise = of.before < 5 * ENOUGH and UNLIKELY or HARDLY -- in many calls there are many runs
    longest = longest_by_chance(math.min(usual, 3 / ((of.quiet or 0) + 3)), surprise)
  end
  return of.run >= longest
end
local function judge_trial(rate, flight, of)
  local n, refused, share = of.n, of.refused, of.trial_share
  local told = by_chance(share, refused, n)
  local enough = n >= ENOUGH and refused >= 5
  if by_chance(share, of.failed, of.before) >= (enough and SURE / 2 or SURE) then
    -- A share that a few calls told is measured once more before it is believed.
    if of.trial_calls < ENOUGH / 2 and of.trial_refused >= 0.2 * of.trial_calls then
      if n >= ENOUGH / 2 then
        begin_trial(rate, of, refused, n, of.trial_pace * (1 - refused / n), 'by count')
      end
      return
    end
    begin_count(rate, of.number + 1)
    redis.call('HSET', rate, 'chance', (of.trial_refused + refused) / (of.trial_calls + n),
      'chance_until', now + math.max(BELIEVED_MS, BELIEVED * (now - of.trial_began)))
    redis.call('HDEL', rate, 'learned', 'learned_at', 'learned_since')
    set_window(rate, math.max(FIRST, 2 * in_flight(flight)), 0)
  elseif told <= -SURE then
    begin_count(rate, of.number + 1)
    redis.call('HSET', rate, 'learned_at', now, 'proven', 1)
  elseif enough and (told < SURE / 2 or n >= 5 * ENOUGH and told < SURE) then
    begin_trial(rate, of, of.trial_refused + refused, of.trial_calls + n, of.trial_pace * (1 - refused / n), 'by count')
  else
    -- Refused behind the trial's end: the rate had grown from it, and the trial goes on below where it came to.
    if of.began > of.trial_until then of.trial_pace = math.max(of.trial_pace, 0.75 * of.rpm) end
    local ends = latest_start(rate) + rest_of_trial(share, told, of.trial_pace)
    redis.call('HSET', rate, 'trial_until', ends, 'trial_pace', of.trial_pace,
      'learned', math.max(of.learned, of.trial_pace), 'learned_at', ends)
  end
end
local function judge_chance(rate, of)
  local n, refused, chance = of.n, of.refused, of.chance
  local more = n >= 10 and refused - n * chance > 4 * math.sqrt(n * chance * (1 - chance)) + 2
  if more or now > of.chance_until and n < 10 * ENOUGH then
    begin_trial(rate, of, refused, n, of.accepted or of.counted, not of.accepted and 'rough')
  elseif n >= 10 * ENOUGH then
    redis.call('HSET', rate, 'chance', (chance + refused / n) / 2, 'count_first', of.number + 1, 'count_refused', 0)
  end
end
-- One is refused at a rate that nobody told to be too high, or that has grown: a little less, for a while.
local function step_back(rate, of)
  if of.only_tokens then
    set_token_brake(rate, of.tpm, of.tokens_free, now)
  elseif of.firm_rpm > 0 and (not of.accepted or of.accepted >= 0.8 * of.rpm) then
    set_learned(rate, 0.98 * of.rpm, now, now)
  elseif of.learned then
    local by = (now - of.learned_at > PEACE or of.grows_fast == 1) and 0.75 or 0.93
    set_learned(rate, math.max(of.proven and of.learned or 0.96 * of.learned, by * of.rpm), now,
      now + math.min(HELD * 60000 / of.rpm, 10000))
  end
end
local function judge_share(rate, of)
  local n, refused = of.n, of.refused
  if of.starting then
    if refused >= 3 and refused >= 0.2 * n then begin_untried(rate, of) end
  elseif of.untried then
    if n >= ENOUGH and (refused >= 5 or n >= 3 * ENOUGH) and refused < n then
      begin_trial(rate, of, refused, n, of.rpm * (1 - refused / n), 'by count')
    end
  elseif refused == 1 then
    step_back(rate, of)
  elseif of.rpm > 0 and (of.accepted or 0) < of.rpm / 2 then -- measured while it was slower
    begin_trial(rate, of, refused, n, of.rpm / 2, 'rough')
  else
    -- Of a few calls a minute the sum lags behind a pace that grows.
    begin_trial(rate, of, refused, n, math.max(of.accepted or of.counted, of.rpm < FEW and 0.8 * of.rpm or 0))
  end
end
-- Returns whether the scope must rest, how sure that is ('outlasts', 'doubtful' or nil), and whether its pace must
-- change with that, to which accepted calls a minute, and whether these are a rough measure.
local function judged(rate, flight, number, began, hint)
  local of = known_of(rate)
  if not of.number then return true end -- Redis was emptied: nothing is known of the others
  local how = follow_run(rate, of, number)
  if how == 'herd' or how == 'unknown' then return how == 'herd' end
  of.began = began
  count_call(rate, of, number, began)
  of.counted = 60000 * math.max(of.n - of.refused, 1) / math.max(now - of.count_at, 1000)
  local doubtful, no_chance = doubts_hints(rate, of, began), is_no_chance(of)
  -- Where nothing was accepted yet a few are enough for a short rest, which proves nothing more.
  local silent = of.run >= SILENT and not of.answered
  if silent and not no_chance then how = nil end
  local ends = how == 'outlasts' or no_chance
  redis.call('HSET', rate, 'run_first', of.run_first, 'run', of.run, 'quiet', of.quiet or 0,
    'run_rested', ends and of.number or 0,
    'run_after', 0)
  if ends or silent or hint and not doubtful then
    local paced = how == 'outlasts' or no_chance and not of.chance
    if paced then begin_count(rate, of.number + 1) end
    local rough = (of.untried or of.starting) and of.before < ENOUGH and how ~= 'outlasts'
    if rough then
      local _, _, _, long, long_since = accepted_until(rate)
      of.accepted = 60000 * math.max(long - in_flight(flight), 1) / (now + tonumber(ARGV[3]) - long_since)
    end
    return true, how or doubtful and 'doubtful', paced, of.accepted, rough
  end
  if of.n < 1 then return false end
  if of.trial_share then
    judge_trial(rate, flight, of)
  elseif of.chance then
    judge_chance(rate, of)
  else
    judge_share(rate, of)
  end
  return false
end
