-- include: models/queue/parts/now.lua
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
