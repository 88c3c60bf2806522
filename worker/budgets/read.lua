-- include: models/queue/parts/now.lua
-- include: worker/budgets/parts/purse.lua
-- KEYS: purses. ARGV: time. Returns for each: limit ('': unknown), spent, held, what was refused last ('': nothing).
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
