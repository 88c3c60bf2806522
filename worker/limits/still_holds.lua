-- include: models/queue/parts/clock.lua
-- include: models/limits/parts/rates.lua
-- A call that waited for its start is about to be made.
-- KEYS: the cooldowns of its candidate, then its rate. ARGV: time, ms that it took of the schedule of requests.
-- Returns -1 when its candidate was cooled meanwhile; else how many ms it must still wait (0: none), because at a slow
--   limit the call before it began late: there is no burst to make up for that.
for k = 1, #KEYS - 1 do
  if (tonumber(redis.call('HGET', KEYS[k], 'until')) or 0) > now then return -1 end
end
local rate, cost = KEYS[#KEYS], tonumber(ARGV[2])
if cost < 1000 or redis.call('EXISTS', rate) == 0 then return 0 end
local early = (tonumber(redis.call('HGET', rate, 'began')) or 0) + TIGHT * cost - now
if early > 0 and early <= cost then return math.ceil(early) end
redis.call('HSET', rate, 'began', now)
return 0
