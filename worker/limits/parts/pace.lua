-- include: models/queue/parts/now.lua
-- include: models/limits/parts/flight.lua
-- include: worker/limits/parts/lifetime.lua
-- include: models/limits/parts/schedules.lua
-- include: worker/limits/parts/slow_start.lua
-- Calls a minute where nothing is known, and below which a learned rate grows fast, because each step is a call.
local UNTRIED, FEW = 1200, 120
-- Calls are booked ahead: those of a new pace begin after the latest of them.
local function latest_start(rate) return math.max(now, tonumber(redis.call('HGET', rate, 'latest')) or 0) end
-- Paced at `learned` a minute from `free` on, without a burst, because the provider has nothing left at this moment.
local function set_learned(rate, learned, free, grows_at, fast)
  local requests_free = tonumber(redis.call('HGET', rate, 'requests')) or 0
  learned = math.max(learned, 1)
  redis.call('HSET', rate, 'learned', learned, 'learned_at', grows_at, 'grows_fast', fast and 1 or 0,
    'requests', math.max(requests_free, free - 1 + math.max(1000 - 60000 / learned, 0)))
  redis.call('HSETNX', rate, 'learned_since', now)
  redis.call('HDEL', rate, 'proven')
  keep(rate, math.max(grows_at, requests_free))
end
local function set_token_brake(rate, tpm, tokens_free, free)
  redis.call('HSET', rate, 'brake_tokens', 0.98 * tpm, 'brake_tokens_until', free + 5000,
    'tokens', math.max(tokens_free, free + 1000))
  keep(rate, free + 5000)
end
-- After a rest. Where a limit is known that was nearly kept, a call came a little too soon: a fiftieth less. Else the
-- pace is what was accepted; where too few were to tell, half of what it was, or `unknown`. Where nobody said how long
-- the rest must be, few calls try again at first. A `rough` measure grows fast.
local function pace_after_rest(rate, flight, free, anew, hint, accepted, rough)
  local _, tokens_free, rpm, tpm, _, firm_rpm, firm_tpm = schedules(rate, tonumber(ARGV[9]), tonumber(ARGV[10]))
  redis.call('HDEL', rate, 'trial_share', 'untried')
  if firm_tpm > 0 and firm_rpm == 0 then
    if anew then set_token_brake(rate, tpm, tokens_free, free) end
    return
  end
  local learned
  if firm_rpm > 0 and (not accepted or accepted >= 0.8 * rpm) then
    learned = anew and 0.98 * rpm
  else
    learned = accepted and 0.98 * accepted or anew and (rpm > 0 and rpm / 2 or UNTRIED)
  end
  if not learned then return end
  set_learned(rate, learned, free, free, rough or learned < FEW)
  if firm_rpm == 0 and not hint then
    if anew then set_window(rate, FIRST, in_flight(flight)) end
  else
    redis.call('HDEL', rate, 'window')
  end
end
