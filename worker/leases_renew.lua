-- include: models/queue/parts/leased.lua
-- Renews the leases of all that a worker has reserved, and corrects the amounts. Fields of workers that died a while
-- ago are removed.
-- KEYS: those of leased amounts. ARGV: time, worker; then for each key the amount and its lease (ms).
-- Returns nothing.
for i, key in ipairs(KEYS) do
  local lease_ms = tonumber(ARGV[i * 2 + 2])
  set_leased(key, ARGV[2], tonumber(ARGV[i * 2 + 1]), lease_ms)
  local fields = redis.call('HGETALL', key)
  for j = 1, #fields, 2 do
    local _, ends = lease_of(fields[j + 1])
    if string.match(fields[j], LEASED) and ends < now - lease_ms * 20 then redis.call('HDEL', key, fields[j]) end
  end
end
