"""`store.runs`."""

from understudy.models.store.runs.compare import Comparison
from understudy.models.store.runs.reruns import Reruns


class Runs(Comparison, Reruns):
    """Runs of an input that may be repeated: whose turn it is, their lines, and what stands for each of them."""
