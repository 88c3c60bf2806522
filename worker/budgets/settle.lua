-- include: worker/budgets/parts/balance.lua
-- A call has ended: what it reserved is free again, and what it cost is spent.
-- KEYS: balances. ARGV: time, worker, lease (ms), what was reserved, what the call cost.
-- Returns nothing.
local worker, lease_ms, reserved, cost = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
for _, key in ipairs(KEYS) do
  add_leased(key, worker, -reserved, lease_ms)
  if cost > 0 then redis.call('HINCRBYFLOAT', key, 'spent', amount(cost)) end
  redis.call('PEXPIRE', key, LIFETIME_MS)
end
