-- Writes tickets at the ends of their queues.
-- KEYS: the queues, the most urgent first.
-- ARGV: RQ's key prefix, time (as RQ writes it), description, timeout, result ttl, failure ttl, a ticket's data
--   before and after its id, how many tickets may stand before one (-1: any number), a key while which exists nothing
--   is written ('': none); then id, queue of each ticket.
-- Returns how many were written.
local prefix, now, description, timeout, result_ttl, failure_ttl, head, tail = unpack(ARGV, 1, 8)
local most, seen, written = tonumber(ARGV[9]), {}, 0
if ARGV[10] ~= '' and redis.call('EXISTS', ARGV[10]) == 1 then return 0 end
local function stand_before(key)
  local count = 0
  for _, each in ipairs(KEYS) do
    count = count + redis.call('LLEN', each)
    if each == key then return count end
  end
  return count
end
for i = 11, #ARGV, 2 do
  local id, queue = ARGV[i], ARGV[i + 1]
  if most < 0 or stand_before(prefix .. ':queue:' .. queue) < most then
    local job = prefix .. ':job:' .. id
    if not seen[queue] then
      seen[queue] = true
      redis.call('SADD', prefix .. ':queues', prefix .. ':queue:' .. queue)
    end
    if redis.call('DEL', job, prefix .. ':results:' .. id) > 0 then
      redis.call('ZREM', prefix .. ':finished:' .. queue, id)
      redis.call('ZREM', prefix .. ':failed:' .. queue, id)
    end
    redis.call('HSET', job, 'status', 'queued', 'origin', queue, 'created_at', now, 'enqueued_at', now,
      'data', head .. id .. tail, 'description', description,
      'timeout', timeout, 'result_ttl', result_ttl, 'failure_ttl', failure_ttl)
    redis.call('RPUSH', prefix .. ':queue:' .. queue, id)
    written = written + 1
  end
end
return written
