-- Bookings on the schedule of tokens, so that tokens a call did not use are given back only as far as a later call can
-- still use them. After a call's start the schedule is busy for at least as long as this call and all later ones take.
-- The field `booked` lists 'start:slack', the oldest first: the slack is how much earlier (ms) the schedule would be
-- free if nothing before that call had taken any of it. A call with a later one of no more slack behind it is left out,
-- and calls whose slack differs by less than NEAR ms are kept as one. A call larger than the burst, or one that found
-- the schedule idle, has slack 0: nothing from before it can be used after it.
local NEAR = 50

local function booked_of(rate)
  local found = {}
  for start, slack in string.gmatch(redis.call('HGET', rate, 'booked') or '', '([%d.]+):([%d.]+)') do
    found[#found + 1] = {start, tonumber(slack)}
  end
  return found
end

local function set_booked(rate, booked)
  local text = {}
  for i, each in ipairs(booked) do text[i] = each[1] .. ':' .. string.format('%.3f', each[2]) end
  redis.call('HSET', rate, 'booked', table.concat(text, ' '))
end

-- Books a call that takes `cost` ms at `start` on a schedule that is free at `free`. Returns when it is free
-- afterwards.
local function book(rate, free, start, cost)
  local booked, slack, name = {}, math.max(free - start, 0), string.format('%.3f', start)
  for _, each in ipairs(free > start and booked_of(rate) or {}) do
    if each[2] < slack then booked[#booked + 1] = each end
  end
  local last = booked[#booked]
  if last and slack - last[2] < NEAR then
    if tonumber(name) > tonumber(last[1]) then last[1] = name end
  else
    booked[#booked + 1] = {name, slack}
  end
  set_booked(rate, booked)
  return math.max(free, start) + cost
end

-- Of a call that began at `start`, `ms` of the schedule were not used. Returns when it is free now.
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
