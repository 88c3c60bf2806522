"""The scripts of budgets. What a purse is in Redis, see `worker/budgets/parts/purse.lua`."""

from understudy.worker.redis_scripts import Script

RESERVE = Script.load("worker/budgets/reserve.lua")
SETTLE = Script.load("worker/budgets/settle.lua")
LOAD = Script.load("worker/budgets/load.lua")
READ = Script.load("worker/budgets/read.lua")
BEAT = Script.load("worker/budgets/beat.lua")
