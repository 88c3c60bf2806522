-- RQ's keys of a ticket being worked on. Each script leaves what RQ's own `Worker` leaves, for many tickets at once.
-- Times are `now`, in the format of RQ's hashes, and `timestamp`, the same in unix seconds.
--   <prefix>:job:<id>                       hash: the ticket
--   <prefix>:execution:<id>:<execution>     hash, TTL: one run of it by one worker
--   <prefix>:executions:<id>                sorted set, TTL: its executions, by expiry
--   <prefix>:wip:<queue>                    sorted set: '<id>:<execution>' of all started tickets of a queue, by expiry
--   <prefix>:worker:<worker>:executions     set, TTL: '<id>:<execution>' of all tickets that a worker runs

-- A registered worker is shown as busy while it runs tickets, else as idle.
local function set_state(worker_key)
  if redis.call('EXISTS', worker_key) == 1 then
    local running = redis.call('SCARD', worker_key .. ':executions')
    redis.call('HSET', worker_key, 'state', running > 0 and 'busy' or 'idle')
  end
end
