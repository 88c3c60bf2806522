"""What is neither a job's fault nor a defect: a server of ours is away, slow or refuses for now, and that may pass."""

import redis.exceptions

from understudy.models.store import StoreOutage
from understudy.worker.limits.limiter import LimitsUnavailable

OUTAGES = (redis.exceptions.RedisError, StoreOutage, LimitsUnavailable, ConnectionError, TimeoutError)
"""What every part of a worker survives, and no job ends of."""

OUTAGE_PAUSE_S = 1.0
OUTAGE = "the ledger or the queue was away"

NO_JUDGE_PAUSE_S = 10.0
"""An answer that could not be checked was paid for: it is not asked for again at once."""

NO_JUDGE = "JSON schemas could not be checked, because no process could be started"
