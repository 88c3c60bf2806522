-- A registered worker is shown as busy while it runs tickets, else as idle.
local function set_state(worker_key)
  if redis.call('EXISTS', worker_key) == 1 then
    local running = redis.call('SCARD', worker_key .. ':executions')
    redis.call('HSET', worker_key, 'state', running > 0 and 'busy' or 'idle')
  end
end
