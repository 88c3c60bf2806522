-- include: models/queue/parts/clock.lua
-- include: models/queue/parts/leased.lua
-- include: models/limits/parts/rates.lua
-- include: models/limits/parts/cooldowns.lua
-- include: worker/limits/parts/candidates.lua
-- include: worker/limits/parts/day_count.lua
-- include: worker/limits/parts/slow_start.lua
-- How many calls could start on each candidate within the horizon. Reserves nothing.
-- KEYS: the candidates' (see `candidates.lua`).
-- ARGV: time, horizon (ms), tokens of a typical call; then the candidates' limits.
-- Returns for each candidate, one after the other:
--   calls that could start within the horizon (-1: no limit),
--   for how many ms it is cooled (0: it is not),
--   what holds further calls ('': nothing),
--   the earliest start (ms),
--   for how many ms it has only refused (0: it has not),
--   the tokens that the schedule has until the horizon (0: no limit),
--   the tokens of a second, which may be taken ahead of it (0: no limit),
--   the calls that the limits other than of tokens let start (-1: there are none),
--   for how many ms a rate that refusals taught has paced it (0: none does).
local horizon, tokens = tonumber(ARGV[2]), tonumber(ARGV[3])
local seen = {}
for _, at in ipairs(candidates(4)) do
  local requests_free, tokens_free, rpm, tpm, known, _, _, learned_since = schedules(at.rate, at.rpm, at.tpm)
  local starts, hold, first, others = -1, '', now, -1
  local function at_most(n, why)
    if starts < 0 or n < starts then starts, hold = n, why end
    if why ~= 'tokens' and (others < 0 or n < others) then others = n end
  end
  local function room(theoretical, cost)
    local ahead = now + horizon + math.max(BURST_MS - cost, 0) - math.max(theoretical, now)
    return math.max(math.floor(ahead / cost) + 1, 0)
  end
  if rpm > 0 then
    at_most(room(requests_free, 60000 / rpm), 'requests')
    first = math.max(first, earliest(requests_free, 60000 / rpm))
  end
  if tpm > 0 and tokens > 0 then
    at_most(room(tokens_free, tokens * 60000 / tpm), 'tokens')
    first = math.max(first, earliest(tokens_free, tokens * 60000 / tpm))
  end
  if at.most > 0 then at_most(math.max(at.most - leased(at.flight), 0) + math.ceil(at.most / 4), 'in_flight') end
  recover(at.rate, at.flight, at.breaker)
  if has_window(at.rate, known) then
    local window, used = window_of(at.rate, at.flight)
    local growth = 4 ^ (math.max(math.min(horizon, 1000) - 2 * SOON, 0) / 1000)
    if window then at_most(math.max(math.floor(window * growth) - used, 0), 'starting') end
  end
  local cooled_until, refusing_since = now, now
  for _, key in ipairs(at.cooldowns) do
    local free, _, probing, since = cooled(key, key == at.breaker)
    if free > cooled_until then cooled_until, hold = free, key == at.breaker and 'breaker' or 'cooldown' end
    if probing then at_most(math.max(math.floor(horizon / 1000), 1), 'cooldown') end
    if probing or free > now then refusing_since = math.min(refusing_since, since) end
  end
  local left, again = left_of_day(at.day, at.flight, math.max(first, cooled_until), at.rpd, at.tpd, tokens)
  if left and cooled_until <= now then at_most(left, 'day') end
  if left == 0 and again > cooled_until then cooled_until, hold = again, 'day' end
  local answer = {
    starts,
    math.ceil(cooled_until - now),
    hold,
    string.format('%.0f', math.max(first, cooled_until)),
    math.ceil(now - refusing_since),
    tpm > 0 and math.floor((now + horizon - math.max(tokens_free, now)) * tpm / 60000) or 0,
    math.ceil(tpm / 60),
    others,
    learned_since and math.max(math.ceil(now - learned_since), 1) or 0,
  }
  for _, each in ipairs(answer) do seen[#seen + 1] = each end
end
return seen
