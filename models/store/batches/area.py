"""`store.batches`."""

from understudy.models.store.batches.lifecycle import Lifecycle
from understudy.models.store.batches.pauses import Pauses
from understudy.models.store.batches.views import Views


class Batches(Views, Pauses, Lifecycle):
    """Whole batches: shown, paused, cancelled, ended."""
