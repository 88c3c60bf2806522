-- include: models/queue/parts/clock.lua
-- import: FIRST_COOLDOWN_MS, LONGEST_DOUBLING_MS from models/limits/constants.py
-- Cooldowns and breakers begin and are prolonged.

-- After a hint (Retry-After) was wrong, hints are not believed for DOUBTED ms. Calls that began within SAME_MOMENT (ms)
-- of each other may reach the provider in the other order, and say nothing about each other's hints.
local DOUBTED, SAME_MOMENT = 600000, 100

-- What COOL and REFUSED are given alike, in ARGV[2] to ARGV[6].
local function rest_arguments()
  return {
    hint = tonumber(ARGV[2]), -- ms; nil: the rest doubles from one to the next
    first = FIRST_COOLDOWN_MS,
    reason = ARGV[3],
    began = tonumber(ARGV[4]) or now, -- when the call began
    is_breaker = ARGV[5] == '1',
    is_probed = ARGV[6] == '1', -- afterwards only probes may start
  }
end

-- Lets the scope of `key` rest for `hint` ms (nil: as long as its earlier cooldowns suggest). Returns the end of the
-- rest and whether it is a new one; nothing when the call proves nothing. Refusals of calls that were under way when
-- the cooldown began do not make it a new one. Calls that began before the breaker was closed, or before its latest
-- probe, prove nothing. A breaker rests a third of the time it has been open.
local function rest(key, call, hint)
  local cool = redis.call('HMGET', key, 'until', 'streak', 'since', 'closed', 'probe')
  local old, streak = tonumber(cool[1]) or 0, tonumber(cool[2]) or 0
  local since = streak > 0 and tonumber(cool[3]) or now
  local newer = math.max(tonumber(cool[4]) or 0, call.is_breaker and streak >= 2 and tonumber(cool[5]) or 0)
  if call.began < newer - 1 then return end
  local free, is_new = old, old <= now
  if is_new then
    local pause = call.is_breaker and math.max((now - since) / 3, call.first) or call.first * 2 ^ streak
    free = now + (hint or math.min(pause, LONGEST_DOUBLING_MS))
    streak = math.max(streak + 1, call.is_probed and 2 or 1)
  elseif hint then
    free = math.max(old, now + hint)
  end
  if free > old then
    redis.call('HSET', key, 'until', string.format('%.0f', free), 'streak', streak, 'hinted', hint and 1 or 0,
      'reason', call.reason, 'since', string.format('%.0f', since))
    redis.call('PEXPIRE', key, math.ceil(free - now + 120000))
  end
  return free, is_new
end
