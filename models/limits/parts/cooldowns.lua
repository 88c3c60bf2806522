-- include: models/queue/parts/clock.lua
-- Cooldowns. A breaker that failures opened, and a cooldown without a hint that followed another one, are probed after
-- their end: one call at a time is let through until one is answered. There is a second between two of them; for a
-- breaker a sixth of the time that it had been open at the latest probe, if that is longer, up to half a minute.
local PROBE_AFTER, PROBE_PAUSE_MS, LONGEST_PROBE_PAUSE_MS = 2, 1000, 30000

-- Returns until when no call may start (0: nothing is known), how many cooldowns there were in a row, whether it is
-- probed, and since when it answers nothing.
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
