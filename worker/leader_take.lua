-- KEYS: the lock. ARGV: who asks, ms. Returns 1 when the lock is the asker's, from now on for so long.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[2]) then  -- no worker wrote it, and nobody would give it up
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 0
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
