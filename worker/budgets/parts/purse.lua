-- include: models/queue/parts/now.lua
-- import: HELD_BY, TOLERANCE_USD from models/costs/budgets.py
-- A purse is the hash of a budget: `limit` (absent: not known yet), `spent`, `short` (what a call was expected to cost
-- that was refused although nothing can come back), and per worker in the field `w:<id>` what its calls under way
-- reserve, with the end of its lease: 'usd|ms'. Amounts are US dollars; differences below TOLERANCE_USD are rounding.
local LIFETIME_MS = 3600000
local function amount(x) return string.format('%.12g', x) end

-- Returns the limit (nil: not known), what is spent, and what workers reserve. Reservations whose lease has ended are
-- removed.
local function purse(key)
  local limit, spent, held = nil, 0, 0
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 'limit' then limit = tonumber(value)
    elseif name == 'spent' then spent = tonumber(value)
    elseif string.sub(name, 1, #HELD_BY) == HELD_BY then
      local usd, lease = string.match(value, '^(.+)|(.+)$')
      if tonumber(lease) > now then held = held + tonumber(usd) else redis.call('HDEL', key, name) end
    end
  end
  return limit, spent, held
end

local function set_held(key, worker, usd, lease_ms)
  if usd > TOLERANCE_USD then
    redis.call('HSET', key, HELD_BY .. worker, string.format('%.12g|%.0f', usd, now + lease_ms))
  else
    redis.call('HDEL', key, HELD_BY .. worker)
  end
  redis.call('PEXPIRE', key, LIFETIME_MS)
end

local function held_by(key, worker)
  local own = redis.call('HGET', key, HELD_BY .. worker)
  return own and tonumber(string.match(own, '^(.+)|')) or 0
end
