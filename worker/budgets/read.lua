-- include: models/queue/parts/now.lua
-- include: worker/budgets/parts/purse.lua
-- Reads balances.
-- KEYS: purses. ARGV: time.
-- Returns for each limit ('': not known), spent, reserved, expected cost of the call that was refused last ('': none).
local seen = {}
for _, key in ipairs(KEYS) do
  local limit, spent, held = purse(key)
  seen[#seen + 1] = limit and amount(limit) or ''
  seen[#seen + 1] = amount(spent)
  seen[#seen + 1] = amount(held)
  local short = redis.call('HGET', key, 'short')
  seen[#seen + 1] = short and amount(tonumber(short)) or ''
end
return seen
