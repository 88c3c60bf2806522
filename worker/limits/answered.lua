-- include: models/queue/parts/clock.lua
-- A call was answered: cooldowns that have ended are over for good. A breaker whose cooldowns came in a row, so that
-- only probes were let through, keeps for ten minutes when it was closed.
-- KEYS: the cooldowns of (account, model), of the account, and of (provider, model), which is the breaker. ARGV: time.
-- Returns nothing.
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
