"""The Lua scripts of budgets. See `worker/budgets/parts/purse.lua` for the format of a balance in Redis."""

from understudy.worker.redis_scripts import Script

RESERVE = Script.load("worker/budgets/reserve.lua")
SETTLE = Script.load("worker/budgets/settle.lua")
LOAD = Script.load("worker/budgets/load.lua")
READ = Script.load("worker/budgets/read.lua")
BEAT = Script.load("worker/budgets/beat.lua")
