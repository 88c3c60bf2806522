-- Takes or renews the leader lock.
-- KEYS: the lock. ARGV: the worker that asks, for how long (ms).
-- Returns 1 when the lock is the worker's from now on for that long, else 0.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[2]) then -- no worker wrote it, and none would release it
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 0
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
