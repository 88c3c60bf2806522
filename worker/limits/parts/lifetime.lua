-- include: models/queue/parts/now.lua
-- Keeps a key until a minute after `last` (ms), the latest moment that it says something about.
local function keep(key, last)
  local ms = math.ceil(math.max(last - now, 0) + 60000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
