-- include: models/queue/parts/leased.lua
-- KEYS: one of leased amounts. ARGV: time.
-- Returns what the fleet has reserved, as a text.
return string.format('%.12g', leased(KEYS[1]))
