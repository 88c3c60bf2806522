-- include: models/queue/parts/now.lua
-- include: worker/budgets/parts/purse.lua
-- KEYS: purses. ARGV: time, worker, lease ms; then what this worker truly holds in each.
for i, key in ipairs(KEYS) do set_held(key, ARGV[2], tonumber(ARGV[i + 3]), tonumber(ARGV[3])) end
