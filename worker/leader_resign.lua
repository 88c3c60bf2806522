-- KEYS: the lock. ARGV: the worker that gives it up.
-- Returns nothing.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
