-- include: models/queue/parts/now.lua
-- Renews the lease of places.
-- KEYS: the places of a batch. ARGV: time, lease (ms); then the claimed jobs that have one.
-- Returns nothing.
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 2)
