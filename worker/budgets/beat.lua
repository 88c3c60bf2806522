-- include: models/queue/parts/now.lua
-- include: worker/budgets/parts/purse.lua
-- Renews the lease of what a worker reserves, and corrects it.
-- KEYS: purses. ARGV: time, worker, lease (ms); then for each what this worker's calls under way reserve.
-- Returns nothing.
for i, key in ipairs(KEYS) do set_held(key, ARGV[2], tonumber(ARGV[i + 3]), tonumber(ARGV[3])) end
