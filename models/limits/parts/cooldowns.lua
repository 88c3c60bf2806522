-- include: models/queue/parts/now.lua
-- import: PROBE_AFTER, PROBE_PAUSE_MS, LONGEST_PROBE_PAUSE_MS from models/limits/law.py
-- A breaker that failures opened, and a cooldown without a hint that followed another one, let one probe through at a
-- time until a call is answered: one a second, of a breaker ever fewer the longer it is open, one in 30 s at least.
-- Returns until when nobody else may start, how often in a row it cooled, whether it is probed, since when.
local function cooled(key, breaker)
  local cool = redis.call('HMGET', key, 'until', 'streak', 'hinted', 'probe', 'since')
  local free, streak, since = tonumber(cool[1]) or 0, tonumber(cool[2]) or 0, tonumber(cool[5]) or now
  local probing = streak >= PROBE_AFTER and (breaker or cool[3] == '0')
  if probing then
    local probe = tonumber(cool[4]) or 0
    local pause = breaker and math.min((probe - since) / 6, LONGEST_PROBE_PAUSE_MS) or 0
    free = math.max(free, probe + math.max(pause, PROBE_PAUSE_MS))
  end
  return free, streak, probing, since
end
