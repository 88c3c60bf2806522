"""The limiter's scripts: each answers one query, or records one event, in one atomic step.

Times are milliseconds of Redis' own clock, so that the whole fleet shares one; tests may pass another. Code shared by
the scripts is in `worker/limits/parts/`; code also used for only reading the limits is in `models/limits/parts/`.
"""

from understudy.worker.redis_scripts import Script

RESERVE = Script.load("worker/limits/reserve.lua")
STILL_HOLDS = Script.load("worker/limits/still_holds.lua")
RELEASE = Script.load("worker/limits/release.lua")
TOLD = Script.load("worker/limits/advertised.lua")
OUTLOOK = Script.load("worker/limits/outlook.lua")
BEAT = Script.load("worker/limits/beat.lua")
COOL = Script.load("worker/limits/cool.lua")
REFUSED = Script.load("worker/limits/refused.lua")
ANSWERED = Script.load("worker/limits/answered.lua")
