-- The candidates of RESERVE and OUTLOOK: a deployment (account and model) with its limits.
-- KEYS: per candidate its rate, flight, the cooldowns of (account, model), of the account and of (provider, model),
--   and its day. ARGV, from `first` on: per candidate requests/min, tokens/min, most calls in flight, requests/day,
--   tokens/day (0: no limit).
local function candidates(first)
  local found = {}
  for c = 0, #KEYS / 6 - 1 do
    local key, argument = c * 6, first + c * 5
    found[c + 1] = {
      rate = KEYS[key + 1], flight = KEYS[key + 2], day = KEYS[key + 6],
      cooldowns = {KEYS[key + 3], KEYS[key + 4], KEYS[key + 5]}, breaker = KEYS[key + 5],
      rpm = tonumber(ARGV[argument]), tpm = tonumber(ARGV[argument + 1]), most = tonumber(ARGV[argument + 2]),
      rpd = tonumber(ARGV[argument + 3]), tpd = tonumber(ARGV[argument + 4]),
    }
  end
  return found
end
