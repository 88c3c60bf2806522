-- include: models/queue/parts/clock.lua
-- import: USED_SHARE, BURST_MS from models/limits/constants.py
-- The rates of requests and tokens, per minute, and their virtual schedules (GCRA).
--
-- A call that takes more than SLOW ms of its schedule belongs to a slow limit: such calls are booked further ahead.
-- From one second per call on there is no burst: two calls begin at least TIGHT of their interval apart.
local SLOW, TIGHT = 500, 0.994
-- A learned rate grows so that a limit that was raised is found: by 1% a second, and after GROWS_SLOWLY_S without a
-- refusal by 10% a second, because it was far too low. A rough guess grows by 10% a second at once. From NO_LIMIT (a
-- million a minute) on it limits nothing.
local SLOW_GROWTH, GROWS_SLOWLY_S, FAST_GROWTH, GROWS_S, NO_LIMIT = 1.01, 30, 1.1, 1000, 1000000

-- When a call that takes `cost` ms of a schedule may start that is next free at `theoretical`.
local function earliest(theoretical, cost)
  return math.max(now, theoretical - math.max(BURST_MS - cost, 0))
end

-- A learned rate as it has grown since `learned_at`; nil when it limits nothing any more.
local function grown(learned, learned_at, fast)
  local s = math.max((now - learned_at) / 1000, 0)
  local slow_s = fast and 0 or math.min(s, GROWS_SLOWLY_S)
  local rate = learned * SLOW_GROWTH ^ slow_s * FAST_GROWTH ^ math.min(s - slow_s, GROWS_S)
  if rate < NO_LIMIT then return rate end
end

-- The rate that refusals taught, as of now: the pace of a trial while it lasts, else the learned rate as it has grown.
-- nil: nothing was learned, or it limits nothing any more.
local LEARNED = {'learned', 'learned_at', 'grows_fast', 'trial_share', 'trial_pace', 'trial_until'}
local function learned_rate(learned, learned_at, grows_fast, trial_share, trial_pace, trial_until)
  if not learned then return end
  if trial_share and now < trial_until then return trial_pace end
  return grown(learned, learned_at, grows_fast == 1)
end

-- The hash's fields as numbers, nil where one is missing.
local function numbers_of(key, fields)
  local values = redis.call('HMGET', key, unpack(fields))
  for i = 1, #fields do values[i] = tonumber(values[i]) end
  return values
end

-- What is known of a (account, model), where `rpm` and `tpm` are the configured limits (0: none). Returns
--   when the schedule of requests is next free (ms), and that of tokens,
--   requests and tokens per minute as they hold now (0: no limit),
--   whether any limit is known, configured, advertised or learned,
--   the limits of requests and tokens that are configured or advertised (0: none),
--   since when a learned rate is the lowest limit of requests (nil: it is not).
-- A configured limit wins over an advertised one. A learned rate, and a brake because others use the account, win over
-- both when they are lower.
local RATE = {'requests', 'tokens', 'advertised_requests', 'advertised_tokens',
  'brake_requests', 'brake_requests_until', 'brake_tokens', 'brake_tokens_until', 'learned_since', unpack(LEARNED)}
local function schedules(key, rpm, tpm)
  local known = numbers_of(key, RATE)
  local requests_free, tokens_free, its_rpm, its_tpm, brake_rpm, brake_rpm_until, brake_tpm, brake_tpm_until, since =
    unpack(known, 1, 9)
  local function lower(a, b) if b and (a == 0 or b < a) then return b end return a end
  if rpm == 0 then rpm = (its_rpm or 0) * USED_SHARE end
  if tpm == 0 then tpm = (its_tpm or 0) * USED_SHARE end
  local firm_rpm, firm_tpm = rpm, tpm
  local has_learned = known[10] ~= nil
  rpm = lower(rpm, learned_rate(unpack(known, 10, 15)))
  if not has_learned or rpm == 0 or firm_rpm > 0 and rpm >= firm_rpm then since = nil end
  if brake_rpm_until and brake_rpm_until > now then rpm = lower(rpm, brake_rpm) end
  if brake_tpm_until and brake_tpm_until > now then tpm = lower(tpm, brake_tpm) end
  local some = firm_rpm > 0 or firm_tpm > 0 or has_learned
  return requests_free or 0, tokens_free or 0, rpm, tpm, some, firm_rpm, firm_tpm, since
end
