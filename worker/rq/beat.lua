-- Renews executions. One that has ended is not revived.
-- ARGV: prefix, now, timestamp, ttl; then id, execution, queue of each execution.
-- Returns nothing.
local prefix, now, timestamp, ttl = unpack(ARGV, 1, 4)
local expiry = math.floor(timestamp) + ttl
for i = 5, #ARGV, 3 do
  local id, execution, queue = unpack(ARGV, i, i + 2)
  local job, execution_key = prefix .. ':job:' .. id, prefix .. ':execution:' .. id .. ':' .. execution
  if redis.call('EXPIRE', execution_key, ttl) == 1 then
    redis.call('HSET', execution_key, 'last_heartbeat', timestamp)
    redis.call('ZADD', prefix .. ':wip:' .. queue, 'XX', expiry, id .. ':' .. execution)
    redis.call('ZADD', prefix .. ':executions:' .. id, 'XX', expiry + 60, execution)
    redis.call('EXPIRE', prefix .. ':executions:' .. id, ttl + 60)
    if redis.call('HGET', job, 'status') == 'started' then
      redis.call('HSET', job, 'last_heartbeat', now)
      redis.call('EXPIRE', job, ttl + 60)
    end
  end
end
