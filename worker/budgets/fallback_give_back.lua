-- KEYS: the places of a batch. ARGV: time (not used), the claimed job that gives its place back.
-- Returns nothing.
redis.call('ZREM', KEYS[1], ARGV[2])
