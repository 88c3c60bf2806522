-- ARGV[1] of every script that includes this: the time in ms that it goes by, or '' for Redis' own clock, which the
-- whole fleet shares. Only tests pass one.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

-- Keeps a key until a minute after `last` (ms), the latest moment that it says something about.
local function keep(key, last)
  local ms = math.ceil(math.max(last - now, 0) + 60000)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
