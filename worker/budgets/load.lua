-- include: worker/budgets/parts/balance.lua
-- Tells Redis what the ledger knows. Redis may know of calls that the ledger does not, and after a wipe the ledger of
-- calls that Redis does not: the larger sum is right.
-- KEYS: balances. ARGV: time; then for each its limit and what is spent according to the ledger.
-- Returns nothing.
for i, key in ipairs(KEYS) do
  local limit, spent = tonumber(ARGV[i * 2]), tonumber(ARGV[i * 2 + 1])
  local before, known = unpack(redis.call('HMGET', key, 'limit', 'spent'))
  if before and math.abs(tonumber(before) - limit) > TOLERANCE_USD then redis.call('HDEL', key, 'short') end
  redis.call('HSET', key, 'limit', amount(limit), 'spent', amount(math.max(spent, tonumber(known or 0))))
  redis.call('PEXPIRE', key, LIFETIME_MS)
end
