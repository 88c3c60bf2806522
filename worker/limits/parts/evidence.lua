-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: models/limits/parts/rates.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/accepted.lua
-- include: worker/limits/parts/rest.lua
-- include: worker/limits/parts/pace.lua
-- What a refusal is evidence for. Calls are numbered in the order in which they began.
--
-- Limit or chance. A limit accepts the same number of calls a minute, however many are asked; chance refuses the same
-- share. So once two are refused (`count_first`, `count_refused`) the pace goes below what was accepted, for a trial:
-- a limit now refuses next to nothing, and chance as much as before. The trial ends when one of the two is a hundred
-- times as likely as the other. If it is a limit, the pace is what was accepted, and grows from there. If it is
-- chance, nothing is paced any more and that share of refusals is expected, until there are more, or until it is time
-- to try again.
--
-- Rest. Nothing is accepted any more: of the calls since the first refused one (`run_first`) all but a straggler were
-- refused (`run`), more in a row than the share of refusals explains. A hint is believed at once, unless one was wrong
-- before (a call that began later was answered, or those after its end were refused as well), or refusals come one by
-- one without a rest.
--
-- Logarithms of how unlikely a run of refusals must be to be no chance (HARDLY: where there are many runs), and of how
-- much more likely one explanation must be than the other.
local UNLIKELY, HARDLY, SURE = math.log(1e-4), math.log(1e-7), math.log(100)
-- That a share is refused by chance is believed BELIEVED times as long as it took to find out, and BELIEVED_MS at
-- least. A count without refusals begins again after PEACE (ms).
local BELIEVED, BELIEVED_MS, PEACE = 15, 30000, 30000
-- ENOUGH calls tell a share. After a single refusal HELD calls keep to a rate before it may grow again. SILENT refusals
-- in a row are enough for a short rest where nothing was accepted yet.
local ENOUGH, HELD, SILENT = 20, 100, 4

-- Of `n` calls `k` were refused: the standard deviation of such a count.
local function spread(k, n) return math.sqrt(k * (n - k) / n) end

-- How many times as likely `k` refusals among `n` calls are by chance as by a limit that is kept to; a logarithm.
local function by_chance(share, k, n)
  local few = math.min(share / 4, 0.05)
  return k * math.log(share / few) + (n - k) * math.log((1 - share) / (1 - few))
end

-- How long a trial still lasts (ms) if nothing more is refused; `evidence`: what `by_chance` says so far.
local function rest_of_trial(share, evidence, pace)
  local calls = (evidence + SURE) / -by_chance(share, 0, 1)
  return math.max(math.min(calls * 60000 / pace, PEACE / 2), 0)
end

-- The longest run of refusals that chance explains where it refuses `share` of the calls.
local function longest_by_chance(share, surprise)
  return math.max(math.ceil(surprise / math.log(math.max(math.min(share, 0.95), 0.001))), 3)
end

local function begin_count(rate, first)
  redis.call('HDEL', rate, 'trial_share', 'chance', 'chance_until', 'trial_began')
  redis.call('HSET', rate, 'count_first', first, 'count_refused', 0, 'count_at', now)
end

-- Begins a trial: `k` of `n` calls were refused and `accepted` a minute were not; calls after the latest are paced
-- below that. `how` well it is known: nil (measured), 'by count' (by few calls: rather too low), or 'rough' (it may
-- grow fast). Where only tokens have a limit no rate of requests is learned, because prompts differ in size.
local function begin_trial(rate, state, k, n, accepted, how)
  local share = math.min((k - spread(k, n)) / n, 0.95)
  local pace = 0.9 * accepted
  if how == 'by count' then pace = pace * math.max(1 - spread(k, n) / math.max(n - k, 1), 0.5) end
  pace = math.max(pace, 1)
  local ends = latest_start(rate) + rest_of_trial(share, 0, pace)
  local learned = state.only_tokens and NO_LIMIT or 0.98 * accepted
  set_learned(rate, learned, now, ends, how == 'rough')
  redis.call('HDEL', rate, 'chance', 'chance_until', 'untried')
  redis.call('HSET', rate, 'count_first', state.number + 1, 'count_refused', 0, 'count_at', now,
    'trial_share', share, 'trial_pace', pace, 'trial_until', ends, 'trial_refused', k, 'trial_calls', n)
  redis.call('HSETNX', rate, 'trial_began', now)
end

-- No limit is known and much is refused: a guess paces the calls until it is known which share is refused.
local function begin_untried(rate, state)
  begin_count(rate, state.number + 1)
  redis.call('HSET', rate, 'untried', 1)
  set_learned(rate, math.max(state.accepted or 0, UNTRIED), now, now + PEACE)
end

-- What is known of a rate: its fields as numbers, its schedules, and requests per minute that are `accepted` now.
local FIELDS = {'number', 'window', 'run_first', 'run', 'quiet', 'run_rested', 'run_after', 'count_first',
  'count_refused', 'count_at', 'trial_share', 'trial_pace', 'trial_until', 'trial_refused', 'trial_calls',
  'trial_began', 'chance', 'chance_until', 'untried', 'learned', 'learned_at', 'grows_fast', 'proven', 'hint_until',
  'hints_doubted_until', 'answered'}
local function known_of(rate, rpm, tpm)
  local state, _ = {}
  for i, value in ipairs(redis.call('HMGET', rate, unpack(FIELDS))) do state[FIELDS[i]] = tonumber(value) end
  _, state.tokens_free, state.rpm, state.tpm, _, state.firm_rpm, state.firm_tpm =
    schedules(rate, rpm, tpm)
  state.only_tokens = state.firm_tpm > 0 and state.firm_rpm == 0
  state.starting = not state.learned and state.firm_rpm + state.firm_tpm == 0 and (state.window or FIRST) < WIDE
  state.accepted = accepted_per_minute(rate, 3)
  return state
end

-- Follows the run of refusals. Returns 'herd' for a call from before the latest rest, 'unknown' while the call before
-- it may still be answered, 'outlasts' when the run goes on after a rest, else nil.
local function follow_run(rate, state, number)
  local rested, after = state.run_rested or 0, state.run_after or 0
  if rested > 0 and number <= rested then
    redis.call('HSET', rate, 'run_first', math.min(state.run_first, number), 'run', state.run + 1)
    return 'herd'
  elseif rested > 0 and number - rested == after + 2 then
    redis.call('HSET', rate, 'run_after', after + 1)
    return 'unknown'
  end
  local goes_on = rested > 0 and number - rested <= after + 1
  if goes_on or rested == 0 and state.run_first and state.run + 1 >= 0.95 * (number - state.run_first + 1) - 1 then
    state.run_first, state.run = math.min(state.run_first, number), state.run + 1
  else
    state.quiet = math.max(number - (state.run_first or 1) - (state.run or 0), 0)
    state.run_first, state.run = number, 1
  end
  return goes_on and 'outlasts' or nil
end

-- Counts the refusal: `refused` of the `n` calls since `count_first`, and `failed` of the `before` calls before the
-- run. A count begins again after half a minute, when the pace has grown since without a refusal, when a trial ended
-- with next to no refusals, and when a rate that was held because of a single one was kept to.
local function count_call(rate, state, number, began)
  local kept
  if state.trial_share then
    kept = began > state.trial_until
      and by_chance(state.trial_share, state.count_refused, number - state.count_first) <= -SURE
  else
    kept = state.count_refused == 1 and state.learned and not state.untried and began > state.learned_at
  end
  local grew = state.count_refused == 0 and state.learned and state.rpm > 1.1 * state.learned
  local stale = not state.count_first
    or not state.trial_share and not state.chance and (grew or now - state.count_at > PEACE)
  if stale or kept then
    state.count_first = number - math.min(number - (state.count_first or 0), (state.accepted or 0) / 120)
    state.count_refused, state.count_at, state.trial_share, state.chance = 0, now, nil, nil
    begin_count(rate, state.count_first)
    if kept then
      redis.call('HSET', rate, 'proven', 1)
      state.proven = 1
    end
  end
  state.n, state.refused = number - state.count_first + 1, state.count_refused or 0
  if state.n >= 1 then
    state.refused = state.refused + 1
    state.n = math.max(state.n, state.refused)
    redis.call('HSET', rate, 'count_refused', state.refused)
  end
  state.before, state.failed = math.max(state.run_first - state.count_first, 0), math.max(state.refused - state.run, 0)
end

-- Whether a hint is not to be believed now.
local function doubts_hints(rate, state, began)
  if state.run > 2 and state.hint_until and began > state.hint_until then
    redis.call('HSET', rate, 'hints_doubted_until', now + DOUBTED)
    redis.call('HDEL', rate, 'hint_from', 'hint_until')
    return true
  end
  return state.chance or state.trial_share or state.untried or state.failed > 0 and state.before > state.failed
    or (state.hints_doubted_until or 0) > now
end

-- Whether the run is longer than the share of refusals explains. Few calls tell little about that share, but it is
-- small when many calls before the run (`quiet`) were not refused.
local function is_no_chance(state)
  local usual = math.max((state.failed + 1) / (state.before + 3), state.before < ENOUGH and 0.6 or 0)
  local longest
  if state.chance then
    longest = longest_by_chance(math.max(state.chance, usual) + 0.1, HARDLY)
  elseif state.trial_share and state.trial_calls >= ENOUGH then
    local known = math.max(state.trial_refused / state.trial_calls, state.before >= ENOUGH and usual or 0)
    longest = longest_by_chance(known + 0.1, UNLIKELY)
  else
    local surprise = state.before < 5 * ENOUGH and UNLIKELY or HARDLY -- in many calls there are many runs
    longest = longest_by_chance(math.min(usual, 3 / ((state.quiet or 0) + 3)), surprise)
  end
  return state.run >= longest
end

local function judge_trial(rate, flight, state)
  local n, refused, share = state.n, state.refused, state.trial_share
  local evidence = by_chance(share, refused, n)
  local enough = n >= ENOUGH and refused >= 5
  if by_chance(share, state.failed, state.before) >= (enough and SURE / 2 or SURE) then
    -- A share that few calls tell is measured once more before it is believed.
    if state.trial_calls < ENOUGH / 2 and state.trial_refused >= 0.2 * state.trial_calls then
      if n >= ENOUGH / 2 then
        begin_trial(rate, state, refused, n, state.trial_pace * (1 - refused / n), 'by count')
      end
      return
    end
    begin_count(rate, state.number + 1)
    redis.call('HSET', rate, 'chance', (state.trial_refused + refused) / (state.trial_calls + n),
      'chance_until', now + math.max(BELIEVED_MS, BELIEVED * (now - state.trial_began)))
    redis.call('HDEL', rate, 'learned', 'learned_at', 'learned_since')
    set_window(rate, math.max(FIRST, 2 * leased(flight)), 0)
  elseif evidence <= -SURE then
    begin_count(rate, state.number + 1)
    redis.call('HSET', rate, 'learned_at', now, 'proven', 1)
  elseif enough and (evidence < SURE / 2 or n >= 5 * ENOUGH and evidence < SURE) then
    local pace = state.trial_pace * (1 - refused / n)
    begin_trial(rate, state, state.trial_refused + refused, state.trial_calls + n, pace, 'by count')
  else
    -- Refused after the trial's end: the rate had grown, and the trial goes on below what it had grown to.
    if state.began > state.trial_until then state.trial_pace = math.max(state.trial_pace, 0.75 * state.rpm) end
    local ends = latest_start(rate) + rest_of_trial(share, evidence, state.trial_pace)
    redis.call('HSET', rate, 'trial_until', ends, 'trial_pace', state.trial_pace,
      'learned', math.max(state.learned, state.trial_pace), 'learned_at', ends)
  end
end

local function judge_chance(rate, state)
  local n, refused, chance = state.n, state.refused, state.chance
  local more = n >= 10 and refused - n * chance > 4 * math.sqrt(n * chance * (1 - chance)) + 2
  if more or now > state.chance_until and n < 10 * ENOUGH then
    begin_trial(rate, state, refused, n, state.accepted or state.counted, not state.accepted and 'rough')
  elseif n >= 10 * ENOUGH then
    redis.call('HSET', rate, 'chance', (chance + refused / n) / 2, 'count_first', state.number + 1, 'count_refused', 0)
  end
end

-- A single call is refused at a rate that is configured, advertised or has grown: a little less, for a while.
local function step_back(rate, state)
  if state.only_tokens then
    set_token_brake(rate, state.tpm, state.tokens_free, now)
  elseif state.firm_rpm > 0 and (not state.accepted or state.accepted >= 0.8 * state.rpm) then
    set_learned(rate, 0.98 * state.rpm, now, now)
  elseif state.learned then
    local by = (now - state.learned_at > PEACE or state.grows_fast == 1) and 0.75 or 0.93
    set_learned(rate, math.max(state.proven and state.learned or 0.96 * state.learned, by * state.rpm), now,
      now + math.min(HELD * 60000 / state.rpm, 10000))
  end
end

local function judge_share(rate, state)
  local n, refused = state.n, state.refused
  if state.starting then
    if refused >= 3 and refused >= 0.3 * n then begin_untried(rate, state) end
  elseif state.untried then
    if n >= ENOUGH and (refused >= 5 or n >= 3 * ENOUGH) and refused < n then
      begin_trial(rate, state, refused, n, state.rpm * (1 - refused / n), 'by count')
    end
  elseif refused == 1 then
    step_back(rate, state)
  elseif state.rpm > 0 and (state.accepted or 0) < state.rpm / 2 then -- measured while it was slower
    begin_trial(rate, state, refused, n, state.rpm / 2, 'rough')
  else
    -- At a few calls a minute the sum lags behind a pace that grows.
    local accepted = math.max(state.accepted or state.counted, state.rpm < FEW and 0.8 * state.rpm or 0)
    begin_trial(rate, state, refused, n, accepted)
  end
end

-- Judges a refused call: {number, began (ms), hint (ms), first rest (ms), rpm, tpm}. Returns whether the scope must
-- rest, how sure that is ('outlasts', 'doubtful' or nil), whether its pace must change with it, the requests per
-- minute that were accepted (nil: too few to tell), and whether these are a rough measure.
local function judged(rate, flight, call)
  local state = known_of(rate, call.rpm, call.tpm)
  if not state.number then return true end -- Redis was emptied: nothing is known of the others
  local how = follow_run(rate, state, call.number)
  if how == 'herd' or how == 'unknown' then return how == 'herd' end
  state.began = call.began
  count_call(rate, state, call.number, call.began)
  state.counted = 60000 * math.max(state.n - state.refused, 1) / math.max(now - state.count_at, 1000)
  local doubtful, no_chance = doubts_hints(rate, state, call.began), is_no_chance(state)
  -- Where nothing was accepted yet a few refusals are enough for a short rest, which proves nothing more.
  local silent = state.run >= SILENT and not state.answered
  if silent and not no_chance then how = nil end
  local ends = how == 'outlasts' or no_chance
  redis.call('HSET', rate, 'run_first', state.run_first, 'run', state.run, 'quiet', state.quiet or 0,
    'run_rested', ends and state.number or 0,
    'run_after', 0)
  if ends or silent or call.hint and not doubtful then
    local paced = how == 'outlasts' or no_chance and not state.chance
    if paced then begin_count(rate, state.number + 1) end
    local rough = (state.untried or state.starting) and state.before < ENOUGH and how ~= 'outlasts'
    if rough then
      local _, _, _, long, long_since = accepted_until(rate)
      state.accepted = 60000 * math.max(long - leased(flight), 1) / (now + call.first - long_since)
    end
    return true, how or doubtful and 'doubtful', paced, state.accepted, rough
  end
  if state.n < 1 then return false end
  if state.trial_share then
    judge_trial(rate, flight, state)
  elseif state.chance then
    judge_chance(rate, state)
  else
    judge_share(rate, state)
  end
  return false
end
