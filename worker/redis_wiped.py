"""What happens when Redis is wiped: how that is noticed, and who writes again what was lost.

Redis only hints, the ledger decides: no job, result or cost is lost. Redis is empty after FLUSHALL, a restart without
persistence, or a failover to an empty replica. `understudy:known-since` is missing then; the first script that needs it
writes it again.

| lost | written again by | when |
|---|---|---|
| tickets | `Planner`, from the ledger's queued jobs, as soon as `was_wiped` | its next pass, 0.1 s |
| leader lock | `LeaderLock.held` of whichever worker asks first | 0.25 s; two leaders for a second do no harm |
| calls in flight, reserved money, reserved fallbacks | `Leases.beat` of each worker | 1 s |
| balances of budgets | `Budgets.reserve` of the first call, `BudgetSync`, from the ledger | at once, 1 s |
| fallbacks in the meantime | no one: `FallbackQuota` grants none until all workers have told theirs | 12 s |
| workers and their executions, as RQ sees them | `Bridge.beat` | 5 s |
| scripts | `ScriptRunner`, redis-py | at once |
| latencies | `Latencies.share`, the new ones of each worker | 5 s |
| learned and advertised limits, cooldowns, breakers, the count of a day | no one: they are learned again | |
| ids of ended jobs, on their way to waiting clients | no one: clients ask the ledger every second | |

Until the leases are renewed, limits of calls in flight and budgets can be exceeded by what was in flight.
"""

from understudy.models.queue import keys
from understudy.worker.redis_scripts import Script, ScriptRunner

READ = Script.load("worker/redis_wiped.lua")

ALL_TOLD_S = 12.0
"""By then every live worker has renewed its leases, even one that is slow."""


class WipedRedis:
    """Notices that Redis was wiped, for one of those who remember what they wrote."""

    def __init__(self, scripts: ScriptRunner) -> None:
        self._scripts = scripts
        self._known_since: bytes | None = None

    async def was_wiped(self) -> bool:
        """Whether Redis was wiped since this was called last. Raises RedisUnavailable."""
        before, self._known_since = self._known_since, await self._scripts.run(READ, [keys.KNOWN_SINCE], [])
        return before not in (None, self._known_since)
