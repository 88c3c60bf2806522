"""`store.runs`."""

from understudy.models.store.runs.compare import Comparison
from understudy.models.store.runs.reruns import Reruns


class Runs(Comparison, Reruns):
    """Repeatable runs of an input: the process that owns one, its lines, and the job behind each line."""
