-- include: models/queue/parts/now.lua
-- include: models/limits/parts/flight.lua
-- include: models/limits/parts/schedules.lua
-- include: worker/limits/parts/accepted.lua
-- include: worker/limits/parts/lifetime.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/rest.lua
-- include: worker/limits/parts/pace.lua
-- include: worker/limits/parts/hint_doubts.lua
-- include: worker/limits/parts/evidence.lua
-- KEYS: cooldown, rate, flight. ARGV as COOL, requests/min and tokens/min that are configured (0: no limit), and the
-- number of the call. A call was refused without being done.
-- Returns the end of the rest that this is evidence for; "" where none is.
local hint = tonumber(ARGV[2])
local rests, how, paced, accepted, rough =
  judged(KEYS[2], KEYS[3], tonumber(ARGV[11]), tonumber(ARGV[6]) or now, hint)
if not rests then return '' end
local streak = tonumber(redis.call('HGET', KEYS[1], 'streak')) or 0
if hint and how == 'doubtful' then hint = math.min(hint, tonumber(ARGV[3]) * 2 ^ streak) end
local free, anew = rest(KEYS[1], hint or how ~= 'outlasts' and tonumber(ARGV[3]) or nil)
if not free then return '' end
if anew and how ~= 'outlasts' then redis.call('HSET', KEYS[1], 'streak', 1) end
if hint then
  redis.call('HSET', KEYS[2], 'hint_from', (tonumber(ARGV[6]) or now) + SAME_MOMENT, 'hint_until', free)
end
if paced and anew then
  pace_after_rest(KEYS[2], KEYS[3], free, anew, hint, accepted, rough)
elseif anew and not hint then
  set_window(KEYS[2], FIRST, in_flight(KEYS[3]))
end
return string.format('%.0f', tonumber(redis.call('HGET', KEYS[1], 'until')))
