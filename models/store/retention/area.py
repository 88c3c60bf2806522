"""`store.retention`."""

from understudy.models.store.retention.delivered import Delivered
from understudy.models.store.retention.expiry import Expiry
from understudy.models.store.retention.prune import Pruning


class Retention(Pruning, Expiry, Delivered):
    """Deletion: of what is old, refused or delivered."""
