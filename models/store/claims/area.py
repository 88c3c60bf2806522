"""`store.claims`."""

from understudy.models.store.claims.claims import WorkerClaims
from understudy.models.store.claims.rescue import Rescue


class Claims(WorkerClaims, Rescue):
    """What workers hold: leases, the guarded start, the fenced settle, and the rescue of a dead worker's jobs."""
