-- include: worker/rq/parts/set_state.lua
-- Ends executions. The last one of a ticket closes the ticket; one that was staged again meanwhile, or is gone, is left
-- alone.
-- ARGV: prefix, worker, now, timestamp, status (and name of the registry), result type, result ttl, counter,
--   exc_string or ''; then id, execution, queue, start (unix seconds) of each execution.
-- Returns nothing.
local prefix, worker, now, timestamp, status, type, ttl, counter, exc_string = unpack(ARGV, 1, 9)
local worker_key = prefix .. ':worker:' .. worker
local count, working_time = 0, 0

local function keep_result(id, execution, queue, started, job)
  redis.call('HSET', job, 'status', status, 'ended_at', now, 'last_heartbeat', now)
  redis.call('EXPIRE', job, ttl)
  local result = {'type', type, 'worker_name', worker, 'execution_id', execution,
    'execution_started_at', started, 'execution_ended_at', timestamp}
  if exc_string ~= '' then
    result[#result + 1] = 'exc_string'
    result[#result + 1] = exc_string
  end
  redis.call('XADD', prefix .. ':results:' .. id, '*', unpack(result))
  redis.call('EXPIRE', prefix .. ':results:' .. id, ttl)
  redis.call('ZADD', prefix .. ':' .. status .. ':' .. queue, math.floor(timestamp) + ttl, id)
end

for i = 10, #ARGV, 4 do
  local id, execution, queue, started = unpack(ARGV, i, i + 3)
  local job, entry = prefix .. ':job:' .. id, id .. ':' .. execution
  redis.call('DEL', prefix .. ':execution:' .. entry)
  redis.call('ZREM', prefix .. ':wip:' .. queue, entry)
  redis.call('ZREM', prefix .. ':executions:' .. id, execution)
  if redis.call('SREM', worker_key .. ':executions', entry) == 1 then
    count = count + 1
    working_time = working_time + timestamp - started
  end
  if redis.call('HGET', job, 'status') == 'started' and redis.call('EXISTS', prefix .. ':executions:' .. id) == 0 then
    keep_result(id, execution, queue, started, job)
  end
end
if redis.call('EXISTS', worker_key) == 1 then
  redis.call('HINCRBY', worker_key, counter, count)
  redis.call('HINCRBYFLOAT', worker_key, 'total_working_time', string.format('%.6f', working_time))
end
set_state(worker_key)
