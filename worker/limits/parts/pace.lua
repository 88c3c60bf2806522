-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: models/limits/parts/rates.lua
-- include: worker/limits/parts/slow_start.lua
-- Which rate follows from refusals. UNTRIED: calls a minute where nothing is known. Below FEW calls a minute a learned
-- rate grows fast, because each step of it is a call.
local UNTRIED, FEW = 1200, 120

-- Calls are booked ahead: those of a new pace begin after the latest of them.
local function latest_start(rate) return math.max(now, tonumber(redis.call('HGET', rate, 'latest')) or 0) end

-- Paces requests at `learned` a minute from `free` (ms) on, without a burst, because the provider has nothing left at
-- this moment. It grows from `grows_at` (ms) on, at once `fast` or slowly first.
local function set_learned(rate, learned, free, grows_at, fast)
  local requests_free = tonumber(redis.call('HGET', rate, 'requests')) or 0
  learned = math.max(learned, 1)
  redis.call('HSET', rate, 'learned', learned, 'learned_at', grows_at, 'grows_fast', fast and 1 or 0,
    'requests', math.max(requests_free, free - 1 + math.max(BURST_MS - 60000 / learned, 0)))
  redis.call('HSETNX', rate, 'learned_since', now)
  redis.call('HDEL', rate, 'proven')
  keep(rate, math.max(grows_at, requests_free))
end

-- Paces tokens a fiftieth below their limit for five seconds from `free` (ms) on.
local function set_token_brake(rate, tpm, tokens_free, free)
  redis.call('HSET', rate, 'brake_tokens', 0.98 * tpm, 'brake_tokens_until', free + 5000,
    'tokens', math.max(tokens_free, free + 1000))
  keep(rate, free + 5000)
end

-- The pace after a rest that ends at `free` (ms). Where a limit is known and was nearly kept to, a call only came a
-- little too soon: a fiftieth less. Else the pace is what was `accepted` a minute; where too few calls were to tell
-- (nil), half of what it was, or UNTRIED. Without a `hint` it is not known how long the rest must be: few calls try
-- again at first. A `rough` measure grows fast.
local function pace_after_rest(rate, flight, call, free, hint, accepted, rough)
  local _, tokens_free, rpm, tpm, _, firm_rpm, firm_tpm = schedules(rate, call.rpm, call.tpm)
  redis.call('HDEL', rate, 'trial_share', 'untried')
  if firm_tpm > 0 and firm_rpm == 0 then
    set_token_brake(rate, tpm, tokens_free, free)
    return
  end
  local learned
  if firm_rpm > 0 and (not accepted or accepted >= 0.8 * rpm) then
    learned = 0.98 * rpm
  else
    learned = accepted and 0.98 * accepted or (rpm > 0 and rpm / 2 or UNTRIED)
  end
  set_learned(rate, learned, free, free, rough or learned < FEW)
  if firm_rpm == 0 and not hint then
    set_window(rate, FIRST, leased(flight))
  else
    redis.call('HDEL', rate, 'window')
  end
end
