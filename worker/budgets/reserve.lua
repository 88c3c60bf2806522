-- include: worker/budgets/parts/balance.lua
-- Reserves what a call is expected to cost in all of the balances, or in none.
-- KEYS: balances. ARGV: time, worker, lease (ms), expected cost.
-- Returns {0}; or {index of the balance that refused (from 1), why, limit, spent, reserved}, where why is 'unknown'
--   (its limit is not known), 'spent', or 'reserved': calls under way have reserved the rest.
-- A call that was refused although nothing can come back is noted in the balance, so that its batch can be paused.
local worker, lease_ms, usd = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
for i, key in ipairs(KEYS) do
  local limit, spent, reserved = balance(key)
  local why
  if not limit then why = 'unknown'
  elseif spent + usd > limit + TOLERANCE_USD then
    why = 'spent'
    redis.call('HSET', key, 'short', amount(usd))
  elseif spent + reserved + usd > limit + TOLERANCE_USD then why = 'reserved' end
  if why then return {i, why, amount(limit or 0), amount(spent), amount(reserved)} end
end
for _, key in ipairs(KEYS) do add_leased(key, worker, usd, lease_ms) end
return {0}
