"""The Lua scripts of `worker.rq.bridge`: each leaves the keys that RQ's own `Worker` leaves, for many tickets at once.

Everywhere `prefix` is RQ's key prefix, `worker` the worker's name, `now` a time in RQ's hash format and `timestamp` the
same in unix seconds. Keys are built inside: a Redis Cluster is not supported.

The keys of a ticket being worked on:

| key | type | meaning |
|---|---|---|
| rq:job:<id> | hash | the ticket |
| rq:execution:<id>:<execution> | hash, TTL | one run of it by one worker |
| rq:executions:<id> | sorted set, TTL | its executions, by expiry |
| rq:wip:<queue> | sorted set | "<id>:<execution>" of all started tickets of a queue, by expiry |
| rq:worker:<worker>:executions | set, TTL | "<id>:<execution>" of all tickets that a worker runs |
"""

from understudy.models.queue.lua_scripts import script_text

CLAIM = script_text("worker/rq/claim.lua")
CLOSE = script_text("worker/rq/close.lua")
BEAT = script_text("worker/rq/beat.lua")
FORGET = script_text("worker/rq/forget.lua")
