-- include: models/queue/parts/now.lua
-- include: models/limits/parts/schedules.lua
-- KEYS: cooldowns, rate. ARGV: time, ms of the schedule that the request took. A call that waited is about to start.
-- Returns -1 when what it is for was cooled meanwhile; else how many ms it must still wait, because at a slow limit the
-- call before it began late: there is no burst that makes up for it.
for k = 1, #KEYS - 1 do
  if (tonumber(redis.call('HGET', KEYS[k], 'until')) or 0) > now then return -1 end
end
local rate, cost = KEYS[#KEYS], tonumber(ARGV[2])
if cost < 1000 or redis.call('EXISTS', rate) == 0 then return 0 end
local early = (tonumber(redis.call('HGET', rate, 'began')) or 0) + TIGHT * cost - now
if early > 0 and early <= cost then return math.ceil(early) end
redis.call('HSET', rate, 'began', now)
return 0
