-- include: models/queue/parts/now.lua
-- KEYS: cooldowns of (account, model), account, (provider, model). ARGV: time. A call was answered: what cooled before
-- and has ended is over. Of a breaker on which only probes were let through it is kept when that was.
for k, key in ipairs(KEYS) do
  local cool = redis.call('HMGET', key, 'until', 'streak')
  if (tonumber(cool[1]) or 0) <= now and cool[2] then
    redis.call('DEL', key)
    if k == 3 and tonumber(cool[2]) >= 2 then
      redis.call('HSET', key, 'closed', string.format('%.3f', now))
      redis.call('PEXPIRE', key, 600000)
    end
  end
end
