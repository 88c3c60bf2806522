-- include: models/queue/parts/now.lua
-- What is written lives for a minute after the last moment that it speaks of.
local function keep(key, last)
  local ms = math.ceil(math.max(last - now, 0) + 60000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
