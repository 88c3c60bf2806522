-- include: models/queue/parts/now.lua
-- import: HELD_BY, TOLERANCE_USD from models/costs/budgets.py
local LIFETIME_MS = 3600000
local function amount(x) return string.format('%.12g', x) end
-- Limit, spent, and what workers hold whose leases run. Counts of workers that died do not count.
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
