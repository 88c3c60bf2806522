-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: worker/limits/parts/day_count.lua
-- include: worker/limits/parts/booked.lua
-- include: worker/limits/parts/accepted.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/rest.lua
-- A call has ended, or was never made.
-- KEYS: rate, flight, the three cooldowns, and the day where it has a limit.
-- ARGV: time, worker, lease (ms), start (ms), ms that it took of the schedule of requests, 'answered', 'refused' or
--   'unmade', tokens used beyond those reserved, configured tokens/min (0: none), tokens reserved, number of the call.
-- Returns nothing.
-- A call that was never made gives its request back, less the part of its share of the schedule that has gone by, and
-- less what calls with a later start have passed over: nothing can use that any more.
local rate, start, cost, ended = KEYS[1], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local tokens, tpm, number = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[10])
if ended == 'answered' and redis.call('HEXISTS', rate, 'window') == 1 then
  local window, used, stuck = window_of(rate, KEYS[2])
  if window and used * 4 >= window then set_window(rate, window + 2, stuck) end
end
add_leased(KEYS[2], ARGV[2], -1, tonumber(ARGV[3]))
if KEYS[6] then settle_in_day(KEYS[6], start, ended == 'answered', tokens, tonumber(ARGV[9])) end
if redis.call('EXISTS', rate) == 0 then return end
if ended ~= 'answered' then count_refused(rate, start) end
local known = redis.call('HMGET', rate, 'requests', 'tokens', 'latest', 'advertised_tokens', 'hint_from', 'hint_until',
  'answered')
if ended == 'answered' and not known[7] then redis.call('HSET', rate, 'answered', 1) end

-- A hint said that nothing would be accepted before its end, but a call that began before then was: it was wrong.
local hinted = tonumber(known[6])
if ended == 'answered' and hinted and start > tonumber(known[5]) and start < hinted then
  for k = 3, 5 do
    if redis.call('HGET', KEYS[k], 'hinted') == '1' then redis.call('DEL', KEYS[k]) end
  end
  redis.call('HDEL', rate, 'hint_from', 'hint_until')
  redis.call('HSET', rate, 'hints_doubted_until', now + DOUBTED)
end
if ended == 'unmade' then -- the counts of refusals have one call less
  for _, field in ipairs({'run_first', 'count_first'}) do
    local first = tonumber(redis.call('HGET', rate, field))
    if first and first <= number then redis.call('HINCRBYFLOAT', rate, field, 1) end
  end
end
if tpm == 0 then tpm = tonumber(known[4]) or 0 end
local requests_free, tokens_free, latest = tonumber(known[1]), tonumber(known[2]), tonumber(known[3]) or 0
if ended == 'unmade' and requests_free then
  local back = math.max(cost - math.max(now - start, 0), 0)
  local passed = start < latest - 0.001 and latest + cost or 0
  redis.call('HSET', rate, 'requests', math.min(requests_free, math.max(requests_free - back, passed)))
  if math.abs((tonumber(redis.call('HGET', rate, 'began')) or 0) - start) < 0.01 then
    redis.call('HDEL', rate, 'began')
  end
end
if tpm > 0 and tokens ~= 0 and tokens_free then
  local ms = tokens * 60000 / tpm
  tokens_free = ms < 0 and give_back(rate, tokens_free, start, -ms) or tokens_free + ms
  redis.call('HSET', rate, 'tokens', tokens_free)
  keep(rate, tokens_free)
end
