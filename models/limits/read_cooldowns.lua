-- include: models/queue/parts/clock.lua
-- include: models/limits/parts/cooldowns.lua
-- What the limiter knows of cooldowns, for people and metrics. Writes nothing.
-- KEYS: cooldowns. ARGV: time; then for each 1 if it is a breaker, else 0.
-- Returns for each {its end (ms), cooldowns in a row, 1 if it is probed else 0, when the next call may start (ms),
--   since when nothing is answered (ms), reason}, each a text; or {} where it has ended and is not probed, or the key
--   holds what no worker wrote.
local function cooldown(key, breaker)
  local next_start, streak, probing, since = cooled(key, breaker)
  local known = redis.call('HMGET', key, 'until', 'reason')
  local ends = tonumber(known[1]) or 0
  if ends <= now and not probing then return {} end
  return {string.format('%.3f', ends), string.format('%.0f', streak), probing and '1' or '0',
    string.format('%.3f', next_start), string.format('%.3f', since), known[2] or ''}
end
local seen = {}
for i, key in ipairs(KEYS) do
  local is_ours, found = pcall(cooldown, key, ARGV[i + 1] == '1')
  seen[i] = is_ours and found or {}
end
return seen
