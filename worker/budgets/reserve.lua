-- include: models/queue/parts/now.lua
-- include: worker/budgets/parts/purse.lua
-- KEYS: purses. ARGV: time, worker, lease ms, what the call is expected to cost.
-- Holds it in all of them, or in none. Returns {0}; or {index of the purse that refused, why, limit, spent, held}:
-- why is 'unknown' (its limit), 'spent', or 'held': calls under way hold the rest.
-- What was refused though nothing can come back is noted, so that a batch whose next job it was is paused.
local worker, lease_ms, usd = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
for i, key in ipairs(KEYS) do
  local limit, spent, held = purse(key)
  local why
  if not limit then why = 'unknown'
  elseif spent + usd > limit + TOLERANCE_USD then
    why = 'spent'
    redis.call('HSET', key, 'short', amount(usd))
  elseif spent + held + usd > limit + TOLERANCE_USD then why = 'held' end
  if why then return {i, why, amount(limit or 0), amount(spent), amount(held)} end
end
for _, key in ipairs(KEYS) do set_held(key, worker, held_by(key, worker) + usd, lease_ms) end
return {0}
