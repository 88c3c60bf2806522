"""The Lua of budgets. A purse is a hash: `limit` (absent: nobody knows it yet), `spent`, and for each worker in the
field `w:<id>` what its calls under way hold, with the end of its lease: `usd|ms`. Amounts are US dollars.
"""

from understudy.models.costs.budgets import HELD_BY, TOLERANCE_USD
from understudy.worker.redis_scripts import NOW, Script

PURSE = f"""
local TOLERANCE = {TOLERANCE_USD:.12f}
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
    elseif string.sub(name, 1, {len(HELD_BY)}) == '{HELD_BY}' then
      local usd, lease = string.match(value, '^(.+)|(.+)$')
      if tonumber(lease) > now then held = held + tonumber(usd) else redis.call('HDEL', key, name) end
    end
  end
  return limit, spent, held
end
local function set_held(key, worker, usd, lease_ms)
  if usd > TOLERANCE then
    redis.call('HSET', key, '{HELD_BY}' .. worker, string.format('%.12g|%.0f', usd, now + lease_ms))
  else
    redis.call('HDEL', key, '{HELD_BY}' .. worker)
  end
  redis.call('PEXPIRE', key, LIFETIME_MS)
end
local function held_by(key, worker)
  local own = redis.call('HGET', key, '{HELD_BY}' .. worker)
  return own and tonumber(string.match(own, '^(.+)|')) or 0
end
"""

HOLD = Script.of(
    NOW,
    PURSE,
    """
-- KEYS: purses. ARGV: time, worker, lease ms, what the call is expected to cost.
-- Holds it in all of them, or in none. Returns {0}; or {index of the purse that refused, why, limit, spent, held}:
-- why is 'unknown' (its limit), 'spent', or 'held': calls under way hold the rest.
-- What was refused though nothing can come back is noted, so that a batch whose next job it was is paused.
local worker, lease_ms, usd = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
for i, key in ipairs(KEYS) do
  local limit, spent, held = purse(key)
  local why
  if not limit then why = 'unknown'
  elseif spent + usd > limit + TOLERANCE then
    why = 'spent'
    redis.call('HSET', key, 'short', amount(usd))
  elseif spent + held + usd > limit + TOLERANCE then why = 'held' end
  if why then return {i, why, amount(limit or 0), amount(spent), amount(held)} end
end
for _, key in ipairs(KEYS) do set_held(key, worker, held_by(key, worker) + usd, lease_ms) end
return {0}
""",
)

SETTLE = Script.of(
    NOW,
    PURSE,
    """
-- KEYS: purses. ARGV: time, worker, lease ms, what was held, what the call did cost.
local worker, lease_ms, held, cost = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
for _, key in ipairs(KEYS) do
  set_held(key, worker, held_by(key, worker) - held, lease_ms)
  if cost > 0 then redis.call('HINCRBYFLOAT', key, 'spent', amount(cost)) end
  redis.call('PEXPIRE', key, LIFETIME_MS)
end
""",
)

LEARN = Script.of(
    NOW,
    PURSE,
    """
-- KEYS: purses. ARGV: time; then for each its limit and what was spent by the ledger.
-- Redis may know of calls that the ledger does not, and after a wipe the reverse: the larger sum is true.
for i, key in ipairs(KEYS) do
  local limit, spent = tonumber(ARGV[i * 2]), tonumber(ARGV[i * 2 + 1])
  local before, known = unpack(redis.call('HMGET', key, 'limit', 'spent'))
  if before and math.abs(tonumber(before) - limit) > TOLERANCE then redis.call('HDEL', key, 'short') end
  redis.call('HSET', key, 'limit', amount(limit), 'spent', amount(math.max(spent, tonumber(known or 0))))
  redis.call('PEXPIRE', key, LIFETIME_MS)
end
""",
)

LOOK = Script.of(
    NOW,
    PURSE,
    """
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
""",
)

BEAT = Script.of(
    NOW,
    PURSE,
    """
-- KEYS: purses. ARGV: time, worker, lease ms; then what this worker truly holds in each.
for i, key in ipairs(KEYS) do set_held(key, ARGV[2], tonumber(ARGV[i + 3]), tonumber(ARGV[3])) end
""",
)
