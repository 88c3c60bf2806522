"""`store.retention`."""

from understudy.models.store.retention.delivered import Delivered
from understudy.models.store.retention.expiry import Expiry
from understudy.models.store.retention.prune import Pruning


class Retention(Pruning, Expiry, Delivered):
    """Deletion of old, rejected and delivered data."""
