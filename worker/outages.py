"""What is neither a job's fault nor a bug: a store is unavailable, slow or busy, and that may pass."""

import redis.exceptions

from understudy.models.jobs.wait_reasons import put_back_for
from understudy.models.store import StoreOutage

OUTAGES = (redis.exceptions.RedisError, StoreOutage, ConnectionError, TimeoutError)
"""Every part of a worker survives these, and no job ends because of them."""

OUTAGE_PAUSE_S = 1.0
OUTAGE = put_back_for("the ledger or the queue was unavailable")
