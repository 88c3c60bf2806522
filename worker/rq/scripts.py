"""The Lua scripts of `worker.rq.bridge`: each leaves the keys that RQ's own `Worker` leaves, for many tickets at once.

Everywhere `prefix` is RQ's key prefix, `worker` the worker's name, `now` a time as RQ writes it into hashes and
`timestamp` the same in unix seconds. Keys are built inside: a Redis Cluster is not supported.

What a ticket in work has in Redis:

| key | type | meaning |
|---|---|---|
| rq:job:<id> | hash | the ticket |
| rq:execution:<id>:<execution> | hash, TTL | one run of it by one worker |
| rq:executions:<id> | sorted set, TTL | its executions, by expiry |
| rq:wip:<queue> | sorted set | "<id>:<execution>" of all started tickets of a queue, by expiry |
| rq:worker:<worker>:executions | set, TTL | "<id>:<execution>" of all tickets that a worker runs |
"""

_SET_STATE = """
local function set_state(worker_key)
  if redis.call('EXISTS', worker_key) == 1 then
    local running = redis.call('SCARD', worker_key .. ':executions')
    redis.call('HSET', worker_key, 'state', running > 0 and 'busy' or 'idle')
  end
end
"""

CLAIM = (
    _SET_STATE
    + """
-- ARGV: prefix, worker, limit, start of the execution ids, now, timestamp, ttl, most bytes of data; then each queue and
-- how many may come from it.
-- Returns nothing while RQ is suspended, else id, execution, queue, data for each ticket that was started.
local prefix, worker, limit, execution_start, now, timestamp, ttl, data_max = unpack(ARGV, 1, 8)
local worker_key = prefix .. ':worker:' .. worker
if redis.call('EXISTS', prefix .. ':suspended') == 1 then
  if redis.call('EXISTS', worker_key) == 1 then redis.call('HSET', worker_key, 'state', 'suspended') end
  return false
end

local expiry = math.floor(timestamp) + ttl
local started = {}
local function start(id, queue, job)
  local execution = string.format('%s%04x', execution_start, #started / 4)
  local entry = id .. ':' .. execution
  redis.call('HSET', prefix .. ':execution:' .. entry, 'id', execution, 'job_id', id,
    'created_at', timestamp, 'last_heartbeat', timestamp, 'worker_name', worker)
  redis.call('EXPIRE', prefix .. ':execution:' .. entry, ttl)
  redis.call('ZADD', prefix .. ':executions:' .. id, expiry + 60, execution)
  redis.call('EXPIRE', prefix .. ':executions:' .. id, ttl + 60)
  redis.call('ZADD', prefix .. ':wip:' .. queue, expiry, entry)
  redis.call('SADD', worker_key .. ':executions', entry)
  redis.call('HSET', job, 'status', 'started', 'started_at', now, 'last_heartbeat', now,
    'worker_name', worker, 'origin', queue)
  redis.call('EXPIRE', job, ttl + 60)
  local data = string.sub(redis.call('HGET', job, 'data') or '', 1, data_max)
  for _, word in ipairs({id, execution, queue, data}) do started[#started + 1] = word end
end

local room = tonumber(limit)
for i = 9, #ARGV, 2 do
  local queue, most = ARGV[i], math.min(room, tonumber(ARGV[i + 1]))
  local ids = most > 0 and redis.call('LPOP', prefix .. ':queue:' .. queue, most) or {}
  room = room - #ids
  for _, id in ipairs(ids) do
    local job = prefix .. ':job:' .. id
    -- An id outside RQ's alphabet would make its other keys ambiguous; a ticket without a hash has expired.
    local named = #id <= 255 and string.match(id, '^[%w_-]+$')
    if named and redis.call('TYPE', job).ok == 'hash' then start(id, queue, job) end
  end
end
if #started > 0 then redis.call('EXPIRE', worker_key .. ':executions', ttl + 60) end
set_state(worker_key)
return started
"""
)

CLOSE = (
    _SET_STATE
    + """
-- ARGV: prefix, worker, now, timestamp, status and registry, result type, result ttl, counter, exc_string or '';
-- then id, execution, queue, started (unix seconds) of each execution to end.
-- The last execution of a ticket closes it. One that was staged again meanwhile, or is gone, is not touched.
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
"""
)

BEAT = """
-- ARGV: prefix, now, timestamp, ttl; then id, execution, queue of each execution. What has ended is not revived.
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
"""

FORGET = """
-- ARGV: prefix, worker; then "<id>:<execution>" of executions of that worker.
-- Deletes them, and each ticket that nobody else runs, so that the planner can stage it anew.
local prefix, worker = ARGV[1], ARGV[2]
for i = 3, #ARGV do
  local entry = ARGV[i]
  local id, execution = string.match(entry, '^(.*):(.-)$')
  local job = prefix .. ':job:' .. id
  local status, queue = unpack(redis.call('HMGET', job, 'status', 'origin'))
  redis.call('DEL', prefix .. ':execution:' .. entry)
  redis.call('ZREM', prefix .. ':executions:' .. id, execution)
  redis.call('SREM', prefix .. ':worker:' .. worker .. ':executions', entry)
  if queue then redis.call('ZREM', prefix .. ':wip:' .. queue, entry) end
  if status == 'started' and redis.call('EXISTS', prefix .. ':executions:' .. id) == 0 then
    redis.call('DEL', job, prefix .. ':results:' .. id)
  end
end
"""
