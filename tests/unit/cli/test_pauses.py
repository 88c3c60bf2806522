"""Which of several batches is paused, for someone who watches them."""

from dataclasses import replace
from typing import Any

from understudy.models.jobs.pace import eta_s
from understudy.models.jobs.views import BatchView
from understudy.models.state import BatchState, JobState, Priority
from understudy.producer.status.waiting import first_paused


def view(state: BatchState, paused: str | None) -> BatchView:
    fields: dict[str, Any] = {
        **{"id": f"batch_{state}", "state": state, "tenant": "default", "priority": Priority.BULK, "source": "a"},
        **{"total": 1, "created_at": 0.0, "expires_at": 1e10, "ended_at": None, "paused": paused, "retry_of": None},
        **{"counts": {}, "cost_usd": 0.0, "fallbacks": 0, "by_deployment": [], "recent_per_s": 0.0, "waits": []},
    }
    return BatchView(**fields)


def test_a_batch_that_was_cancelled_while_it_was_held_is_not_held_any_more() -> None:
    cancelled, moving = view(BatchState.CANCELLED, "paused by hand"), view(BatchState.IN_PROGRESS, None)
    assert first_paused([cancelled, moving]) is None
    held = view(BatchState.IN_PROGRESS, "paused by hand")
    assert first_paused([cancelled, moving, held]) is held


def test_no_end_is_foretold_for_a_batch_that_is_held() -> None:
    moving = replace(view(BatchState.IN_PROGRESS, None), counts={JobState.QUEUED: 30}, recent_per_s=2.0)
    assert eta_s(moving) == 15.0
    assert eta_s(replace(moving, paused="paused by hand")) is None
