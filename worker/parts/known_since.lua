-- include: models/queue/parts/clock.lua
-- Since when (ms) Redis knows what the fleet tells it. It was empty then: new, or wiped.
local function known_since(key)
  local since = tonumber(redis.call('GET', key))
  if not since or since > now then
    since = now
    redis.call('SET', key, string.format('%.3f', since))
  end
  return since
end
