-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- import: TOLERANCE_USD from models/costs/budgets.py
-- The balance of a budget is a hash: `limit` (absent: not known yet), `spent`, `short` (what a call was expected to
-- cost that was refused although nothing can come back), and what workers have reserved (see `leased.lua`). Amounts are
-- US dollars; differences below TOLERANCE_USD are rounding.
local LIFETIME_MS = 3600000
local function amount(x) return string.format('%.12g', x) end

-- Returns the limit (nil: not known), what is spent, and what is reserved.
local function balance(key)
  local limit, spent = unpack(redis.call('HMGET', key, 'limit', 'spent'))
  return tonumber(limit), spent == false and 0 or tonumber(spent), leased(key)
end
