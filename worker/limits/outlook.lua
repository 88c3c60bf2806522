-- include: models/queue/parts/now.lua
-- include: models/limits/parts/flight.lua
-- include: models/limits/parts/day.lua
-- include: models/limits/parts/schedules.lua
-- include: models/limits/parts/cooldowns.lua
-- include: worker/limits/parts/lifetime.lua
-- include: worker/limits/parts/slow_start.lua
-- include: worker/limits/parts/recovery.lua
-- KEYS as RESERVE. ARGV: time, horizon ms, tokens of a typical call; then per candidate as RESERVE.
-- Returns per candidate: calls that could start within the horizon (-1: no limit), ms it is cooled (0: it is not), what
-- holds further calls ('': nothing), the earliest start, ms for which it has only refused (0: it does not), the tokens
-- that the schedule has until the horizon, those of a second (0: no limit), which may be taken ahead of it, and the
-- calls that the other limits let start (-1: none of them holds any), and ms for which a learned rate paces it (0: it
-- does not).
local horizon, tokens = tonumber(ARGV[2]), tonumber(ARGV[3])
local seen = {}
for c = 0, #KEYS / 6 - 1 do
  local rpm, tpm, most = tonumber(ARGV[c * 5 + 4]), tonumber(ARGV[c * 5 + 5]), tonumber(ARGV[c * 5 + 6])
  local starts, requests_free, tokens_free, known = -1
  local _, learned_since
  requests_free, tokens_free, rpm, tpm, known, _, _, learned_since = schedules(KEYS[c * 6 + 1], rpm, tpm)
  local hold, first, others = '', now, -1
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
  if most > 0 then at_most(math.max(most - in_flight(KEYS[c * 6 + 2]), 0) + math.ceil(most / 4), 'in_flight') end
  recover(KEYS[c * 6 + 1], KEYS[c * 6 + 2], KEYS[c * 6 + 5])
  if has_window(KEYS[c * 6 + 1], known) then
    local window, used = window_of(KEYS[c * 6 + 1], KEYS[c * 6 + 2])
    local growth = 4 ^ (math.max(math.min(horizon, 1000) - 2 * SOON, 0) / 1000)
    if window then at_most(math.max(math.floor(window * growth) - used, 0), 'starting') end
  end
  local cooled_until, refusing_since = now, now
  for k = 3, 5 do
    local free, _, probing, since = cooled(KEYS[c * 6 + k], k == 5)
    if free > cooled_until then cooled_until, hold = free, k == 5 and 'breaker' or 'cooldown' end
    if probing then at_most(math.max(math.floor(horizon / 1000), 1), 'cooldown') end
    if probing or free > now then refusing_since = math.min(refusing_since, since) end
  end
  local rpd, tpd = tonumber(ARGV[c * 5 + 7]), tonumber(ARGV[c * 5 + 8])
  local left, again = left_of_day(KEYS[c * 6 + 6], KEYS[c * 6 + 2], math.max(first, cooled_until), rpd, tpd, tokens)
  if left and cooled_until <= now then at_most(left, 'day') end
  if left == 0 and again > cooled_until then cooled_until, hold = again, 'day' end
  seen[#seen + 1] = starts
  seen[#seen + 1] = math.ceil(cooled_until - now)
  seen[#seen + 1] = hold
  seen[#seen + 1] = string.format('%.0f', math.max(first, cooled_until))
  seen[#seen + 1] = math.ceil(now - refusing_since)
  seen[#seen + 1] = tpm > 0 and math.floor((now + horizon - math.max(tokens_free, now)) * tpm / 60000) or 0
  seen[#seen + 1] = math.ceil(tpm / 60)
  seen[#seen + 1] = others
  seen[#seen + 1] = learned_since and math.max(math.ceil(now - learned_since), 1) or 0
end
return seen
