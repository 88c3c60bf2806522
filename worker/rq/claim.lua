-- include: worker/rq/parts/set_state.lua
-- Starts tickets.
-- ARGV: prefix, worker, limit, start of the execution ids, now, timestamp, ttl, longest data of a ticket in bytes; then
--   each queue and how many tickets may come from it. KEYS: none; they are built from RQ's prefix.
-- Returns nothing while RQ is suspended; else id, execution, queue, data of each ticket that was started.
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
