"""What follows from refusals, failures and answers for whoever comes next: cooldowns, breakers, learned rates.

Every script begins with ARGV[1]: the time in ms to use instead of Redis' own clock, or "".
"""

from understudy.worker.limits.refusal_lua import EVIDENCE, PACE, REST
from understudy.worker.limits.shared_lua import ACCEPTED, DOUBTS, FLIGHT, LIFETIME, SCHEDULES, SLOW_START
from understudy.worker.redis_scripts import NOW, Script

COOL = Script.of(
    NOW,
    REST,
    """
-- KEYS: cooldown. ARGV: time, how long ms ("" for doubling), first ms, longest doubling ms, reason, when the call began
-- ("" when that does not matter), 1 for a breaker, 1 when only probes may follow. Returns the cooldown's end.
local free = rest(KEYS[1], tonumber(ARGV[2]))
return string.format('%.0f', free or tonumber(redis.call('HGET', KEYS[1], 'until')) or 0)
""",
)

REFUSED = Script.of(
    NOW,
    FLIGHT,
    SCHEDULES,
    ACCEPTED,
    LIFETIME,
    SLOW_START,
    REST,
    PACE,
    DOUBTS,
    EVIDENCE,
    """
-- KEYS: cooldown, rate, flight. ARGV as COOL, requests/min and tokens/min that are configured (0: no limit), and the
-- number of the call. A call was refused without being done.
-- Returns the end of the rest that this is evidence for; "" where none is.
local hint = tonumber(ARGV[2])
local rests, how, paced, accepted, rough =
  judged(KEYS[2], KEYS[3], tonumber(ARGV[11]), tonumber(ARGV[6]) or now, hint)
if not rests then return '' end
local streak = tonumber(redis.call('HGET', KEYS[1], 'streak')) or 0
if hint and how == 'doubtful' then hint = math.min(hint, tonumber(ARGV[3]) * 2 ^ streak) end
local free, anew = rest(KEYS[1], hint or how ~= 'outlasts' and tonumber(ARGV[3]) or nil)
if not free then return '' end
if anew and how ~= 'outlasts' then redis.call('HSET', KEYS[1], 'streak', 1) end
if hint then
  redis.call('HSET', KEYS[2], 'hint_from', (tonumber(ARGV[6]) or now) + SAME_MOMENT, 'hint_until', free)
end
if paced and anew then
  pace_after_rest(KEYS[2], KEYS[3], free, anew, hint, accepted, rough)
elseif anew and not hint then
  set_window(KEYS[2], FIRST, in_flight(KEYS[3]))
end
return string.format('%.0f', tonumber(redis.call('HGET', KEYS[1], 'until')))
""",
)

ANSWERED = Script.of(
    NOW,
    """
-- KEYS: cooldowns of (account, model), account, (provider, model). ARGV: time. A call was answered: what cooled before
-- and has ended is over. Of a breaker on which only probes were let through it is kept when that was.
for k, key in ipairs(KEYS) do
  local cool = redis.call('HMGET', key, 'until', 'streak')
  if (tonumber(cool[1]) or 0) <= now and cool[2] then
    redis.call('DEL', key)
    if k == 3 and tonumber(cool[2]) >= 2 then
      redis.call('HSET', key, 'closed', string.format('%.3f', now))
      redis.call('PEXPIRE', key, 600000)
    end
  end
end
""",
)
