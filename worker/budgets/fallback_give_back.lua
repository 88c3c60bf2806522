-- KEYS: the places of a batch. ARGV: now, who gives its place back.
redis.call('ZREM', KEYS[1], ARGV[2])
