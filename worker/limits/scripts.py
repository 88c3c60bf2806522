"""The limiter's scripts: each answers one question, or keeps one event, in one atomic step.

Times are milliseconds of Redis' own clock, so that the whole fleet shares one; tests may pass another. What the scripts
share is in `worker/limits/parts/`, and in `models/limits/parts/` what those who only read the limits go by as well.
"""

from understudy.worker.redis_scripts import Script

RESERVE = Script.load("worker/limits/reserve.lua")
STILL_HOLDS = Script.load("worker/limits/still_holds.lua")
RELEASE = Script.load("worker/limits/release.lua")
TOLD = Script.load("worker/limits/told.lua")
OUTLOOK = Script.load("worker/limits/outlook.lua")
BEAT = Script.load("worker/limits/beat.lua")
COOL = Script.load("worker/limits/cool.lua")
REFUSED = Script.load("worker/limits/refused.lua")
ANSWERED = Script.load("worker/limits/answered.lua")
