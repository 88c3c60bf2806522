-- include: worker/parts/known_since.lua
-- KEYS: since when Redis knows. ARGV: time.
-- Returns that time (ms), as a text.
return string.format('%.3f', known_since(KEYS[1]))
