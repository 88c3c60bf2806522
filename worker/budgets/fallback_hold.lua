-- include: models/queue/parts/now.lua
-- KEYS: the places of a batch. ARGV: now, lease in ms, who holds one ...
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 2)
