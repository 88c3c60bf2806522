-- For so long no hint is believed after one was wrong. Calls that began within SAME_MOMENT may reach the provider in
-- another order than they began in: they say nothing of each other's hints.
local DOUBTED, SAME_MOMENT = 600000, 100
