-- What was booked of the schedule of tokens, so that tokens that were not used are given back only as far as they can
-- still be used. The schedule is next free at the latest of: a call's start and the tokens of it and of all after it.
-- `booked` has such calls as 'start:how much earlier that would be than the schedule is free', the oldest first; one
-- behind which a later call stands at least as late is left out, and those within NEAR ms are kept as one. A call
-- larger than the burst, or one that found the schedule idle, stands at 0: nothing from before it can be used after it.
local NEAR = 50
local function booked_of(rate)
  local found = {}
  for start, less in string.gmatch(redis.call('HGET', rate, 'booked') or '', '([%d.]+):([%d.]+)') do
    found[#found + 1] = {start, tonumber(less)}
  end
  return found
end
local function set_booked(rate, booked)
  local text = {}
  for i, each in ipairs(booked) do text[i] = each[1] .. ':' .. string.format('%.3f', each[2]) end
  redis.call('HSET', rate, 'booked', table.concat(text, ' '))
end
-- A call is booked at `start`, before which the schedule was free at `free`; returns when it is free afterwards.
local function book(rate, free, start, cost)
  local booked, less, name = {}, math.max(free - start, 0), string.format('%.3f', start)
  for _, each in ipairs(free > start and booked_of(rate) or {}) do
    if each[2] < less then booked[#booked + 1] = each end
  end
  local last = booked[#booked]
  if last and less - last[2] < NEAR then
    if tonumber(name) > tonumber(last[1]) then last[1] = name end
  else
    booked[#booked + 1] = {name, less}
  end
  set_booked(rate, booked)
  return math.max(free, start) + cost
end
-- Of a call that began at `start`, `ms` of the schedule were not used; returns when it is free now.
local function give_back(rate, free, start, ms)
  local booked, kept, back = booked_of(rate), {}, ms
  for _, each in ipairs(booked) do
    if tonumber(each[1]) > start + 0.0005 then back = math.min(back, each[2]) end
  end
  for _, each in ipairs(booked) do
    local later = tonumber(each[1]) > start + 0.0005
    kept[#kept + 1] = {each[1], later and each[2] - back or each[2] + ms - back}
  end
  set_booked(rate, kept)
  return free - back
end
