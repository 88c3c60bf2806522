-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/rest.lua
-- include: worker/limits/parts/pace.lua
-- include: worker/limits/parts/evidence.lua
-- A call was refused without being done: by a rate limit or an overload.
-- KEYS: the cooldown of the scope that refused, rate, flight.
-- ARGV: as COOL; then the configured requests/min and tokens/min (0: no limit), and the number of the call.
-- Returns the end of the rest that this is evidence for (ms); '' where it is evidence for none.
local call = rest_arguments()
call.rpm, call.tpm, call.number = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local cooldown, rate, flight = KEYS[1], KEYS[2], KEYS[3]
local rests, how, paced, accepted, rough = judged(rate, flight, call)
if not rests then return '' end
local hint, streak = call.hint, tonumber(redis.call('HGET', cooldown, 'streak')) or 0
if hint and how == 'doubtful' then hint = math.min(hint, call.first * 2 ^ streak) end
local free, is_new = rest(cooldown, call, hint or how ~= 'outlasts' and call.first or nil)
if not free then return '' end
if is_new and how ~= 'outlasts' then redis.call('HSET', cooldown, 'streak', 1) end
if hint then redis.call('HSET', rate, 'hint_from', call.began + SAME_MOMENT, 'hint_until', free) end
if paced and is_new then
  pace_after_rest(rate, flight, call, free, hint, accepted, rough)
elseif is_new and not hint then
  set_window(rate, FIRST, leased(flight))
end
return string.format('%.0f', tonumber(redis.call('HGET', cooldown, 'until')))
