"""A job as the store shows it, for tests without a store."""

from typing import Any

from understudy.models.jobs.submission import SINGLE
from understudy.models.jobs.views import JobView
from understudy.models.state import JobState, Priority


def job_view(**fields: Any) -> JobView:
    """A queued single job that was just accepted, but for these fields."""
    nothing = dict.fromkeys(JobView.__dataclass_fields__)
    words = {"id": "job_1", "tenant": "default", "batch_id": SINGLE, "custom_id": "r1", "chain_id": "c", "extra": None}
    numbers = {"line": 0, "attempts": 0, "answer_bytes": 0}
    times = {"created_at": 0.0, "expires_at": 1e12, "not_before": 0.0, "now": 0.0}
    state = {"state": JobState.QUEUED, "priority": Priority.NORMAL, "cancel_requested": False, "metadata": {}}
    known: dict[str, Any] = {**nothing, **words, **numbers, **times, **state, **fields}
    return JobView(**known)
