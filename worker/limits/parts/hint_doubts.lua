-- After a hint (Retry-After) was wrong, hints are not believed for DOUBTED ms. Calls that began within SAME_MOMENT (ms)
-- of each other may reach the provider in the other order, and say nothing about each other's hints.
local DOUBTED, SAME_MOMENT = 600000, 100
