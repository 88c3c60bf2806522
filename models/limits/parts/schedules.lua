-- include: models/queue/parts/now.lua
-- import: USED_SHARE, BURST_MS, NO_LIMIT from models/limits/law.py
-- import: SLOW_GROWTH, SLOW_GROWTH_S, FAST_GROWTH, FAST_GROWTH_S from models/limits/law.py
-- A call that takes more than SLOW ms of its schedule belongs to a slow limit: such calls are booked further ahead.
-- Where it takes a second or more, there is no burst: two calls begin no closer together than TIGHT of that.
local SLOW, TIGHT = 500, 0.994
-- GCRA: `theoretical` is when the virtual schedule is next free; a second's worth may be taken ahead of it.
local function earliest(theoretical, cost)
  return math.max(now, theoretical - math.max(BURST_MS - cost, 0))
end
-- A learned rate grows by 1% a second, so that a limit that was raised is found, and by 10% a second when nothing was
-- refused for half a minute, or at once where it is a rough guess: it was far too low. Above a million a minute it is
-- no limit.
local function grown(learned, learned_at, fast)
  local s = math.max((now - learned_at) / 1000, 0)
  local slow = fast and 0 or math.min(s, SLOW_GROWTH_S)
  local rate = learned * SLOW_GROWTH ^ slow * FAST_GROWTH ^ math.min(s - slow, FAST_GROWTH_S)
  if rate < NO_LIMIT then return rate end
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
  if rpm == 0 then rpm = (known[5] or 0) * USED_SHARE end
  if tpm == 0 then tpm = (known[6] or 0) * USED_SHARE end
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
