-- include: models/queue/parts/leased.lua
-- include: worker/parts/known_since.lua
-- A job may be answered by a later step than its first.
-- KEYS: since when Redis knows, the fallbacks of the batch. ARGV: time, worker, lease (ms), for how long none may fall
--   back after a wipe (ms).
-- Returns {fallbacks that are reserved, 0}; or {0, for how many ms there is none}.
local free = known_since(KEYS[1]) + ARGV[4]
if now < free then return {0, math.ceil(free - now)} end
add_leased(KEYS[2], ARGV[2], 1, tonumber(ARGV[3]))
return {leased(KEYS[2]), 0}
