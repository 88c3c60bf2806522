-- Deletes executions of a worker, and each ticket that nothing else runs, so that the planner can stage it again.
-- ARGV: prefix, worker; then '<id>:<execution>' of each execution.
-- Returns nothing.
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
