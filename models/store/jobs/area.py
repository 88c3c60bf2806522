"""`store.jobs`."""

from understudy.models.store.jobs.cancel import Cancelling
from understudy.models.store.jobs.ended import Ended
from understudy.models.store.jobs.history import History
from understudy.models.store.jobs.of_tenant import JobsOfTenant


class Jobs(History, JobsOfTenant, Cancelling, Ended):
    """Jobs one by one: looked up, listed, cancelled, asked again; and the calls made for them."""
