-- include: models/queue/parts/clock.lua
-- include: worker/limits/parts/rest.lua
-- A scope cools: no call of it may start for a while.
-- KEYS: the cooldown. ARGV: time, for how long (ms; '': twice as long as last time), reason, when the call began (ms;
--   '': that does not matter), 1 for a breaker, 1 when only probes may follow.
-- Returns the cooldown's end (ms).
local call = rest_arguments()
local free = rest(KEYS[1], call, call.hint)
return string.format('%.0f', free or tonumber(redis.call('HGET', KEYS[1], 'until')) or 0)
