"""`store.jobs`."""

from understudy.models.store.jobs.cancel import Cancelling
from understudy.models.store.jobs.ended import Ended
from understudy.models.store.jobs.history import History
from understudy.models.store.jobs.of_tenant import JobsOfTenant


class Jobs(History, JobsOfTenant, Cancelling, Ended):
    """Single jobs: looked up, listed, cancelled, run again; and their provider calls."""
