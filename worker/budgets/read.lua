-- include: worker/budgets/parts/balance.lua
-- Reads balances.
-- KEYS: balances. ARGV: time.
-- Returns for each limit ('': not known), spent, reserved, expected cost of the call that was refused last ('': none).
local seen = {}
for _, key in ipairs(KEYS) do
  local limit, spent, reserved = balance(key)
  local short = tonumber(redis.call('HGET', key, 'short'))
  seen[#seen + 1] = limit and amount(limit) or ''
  seen[#seen + 1] = amount(spent)
  seen[#seen + 1] = amount(reserved)
  seen[#seen + 1] = short and amount(short) or ''
end
return seen
