-- include: models/queue/parts/now.lua
-- include: worker/limits/parts/rest.lua
-- KEYS: cooldown. ARGV: time, how long ms ("" for doubling), first ms, longest doubling ms, reason, when the call began
-- ("" when that does not matter), 1 for a breaker, 1 when only probes may follow. Returns the cooldown's end.
local free = rest(KEYS[1], tonumber(ARGV[2]))
return string.format('%.0f', free or tonumber(redis.call('HGET', KEYS[1], 'until')) or 0)
