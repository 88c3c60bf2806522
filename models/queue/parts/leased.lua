-- include: models/queue/parts/clock.lua
-- Amounts that workers have reserved: calls in flight, money, fallbacks. A hash has a field for each worker,
-- `w:<worker>`: 'amount|end of its lease in ms'. When the lease ends the amount does not count any more, so that a
-- killed worker leaks nothing. Live workers renew theirs (RENEW). What no worker wrote counts as none.
local LEASED = '^w:'

-- Returns amount and end of the lease of a field.
local function lease_of(value)
  local amount, ends = string.match(value or '', '^(%d[%de.+-]*)|(%d[%d.]*)$')
  return tonumber(amount) or 0, tonumber(ends) or 0
end

-- Returns what the fleet has reserved.
local function leased(key)
  local sum = 0
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if string.match(fields[i], LEASED) then
      local amount, ends = lease_of(fields[i + 1])
      if ends > now then sum = sum + amount end
    end
  end
  return sum
end

-- A worker has reserved `amount`; a remainder of rounding is nothing.
local function set_leased(key, worker, amount, lease_ms)
  if amount > 1e-9 then
    redis.call('HSET', key, 'w:' .. worker, string.format('%.12g|%.0f', amount, now + lease_ms))
  else
    redis.call('HDEL', key, 'w:' .. worker)
  end
  keep(key, now + lease_ms * 20)
end

local function add_leased(key, worker, by, lease_ms)
  set_leased(key, worker, lease_of(redis.call('HGET', key, 'w:' .. worker)) + by, lease_ms)
end
