-- Takes, renews or gives up the leader lock.
-- KEYS: the lock. ARGV: time (not used), worker, for how long it leads (ms; 0: it gives the lock up).
-- Returns 1 when the lock is the worker's from now on for that long, else 0.
local worker, ms = ARGV[2], tonumber(ARGV[3])
if ms == 0 then
  if redis.call('GET', KEYS[1]) == worker then redis.call('DEL', KEYS[1]) end
  return 0
end
if redis.call('SET', KEYS[1], worker, 'NX', 'PX', ms) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > ms then -- no worker wrote it, and none would release it
  redis.call('PEXPIRE', KEYS[1], ms)
  return 0
end
if redis.call('GET', KEYS[1]) ~= worker then return 0 end
return redis.call('PEXPIRE', KEYS[1], ms)
