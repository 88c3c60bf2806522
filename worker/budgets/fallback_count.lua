-- include: models/queue/parts/now.lua
-- KEYS: the places of a batch. ARGV: time.
-- Returns how many are taken.
return redis.call('ZCOUNT', KEYS[1], now, '+inf')
