"""A batch and its retries, oldest first, treated as one: their ids and their combined progress."""

from collections.abc import Sequence
from dataclasses import dataclass

from understudy.models.records import BatchView
from understudy.models.state import OPEN_BATCH_STATES, TERMINAL_STATES, BatchState, JobState
from understudy.models.store import Store

ANSWERED_BY = "answered_by"
"""In the options of a retry: the providers whose answers it replaces."""

NEVER_ACCEPTED = frozenset({BatchState.VALIDATING, BatchState.FAILED})
"""A batch still being filled, or whose filling failed."""

ENDED_BADLY = TERMINAL_STATES - {JobState.SUCCEEDED}


async def line_of(store: Store, batch_id: str) -> list[str]:
    """A batch and its accepted retries, oldest first. Empty when the batch itself was not accepted."""
    line = await accepted(store, [batch_id, *await store.batches.retries_of(batch_id)])
    return line if line[:1] == [batch_id] else []


async def accepted(store: Store, batches: Sequence[str]) -> list[str]:
    views = [await store.batches.view(each) for each in batches]
    return [view.id for view in views if view is not None and view.state not in NEVER_ACCEPTED]


async def views_of(store: Store, batches: Sequence[str]) -> list[BatchView]:
    """The batches that exist, in the given order."""
    views = [await store.batches.view(batch_id) for batch_id in batches]
    return [view for view in views if view is not None]


@dataclass(frozen=True, slots=True)
class Summary:
    """The progress of a run over all its batches. A line being retried counts as unfinished."""

    total: int
    succeeded: int
    failed: int
    open: bool
    cost_usd: float
    fallbacks: int
    unpriced_calls: int = 0  # not included in cost_usd

    @property
    def done(self) -> int:
        return self.succeeded + self.failed


def summary(views: list[BatchView]) -> Summary:
    """Sum a batch and its retries, oldest first: the lines of a retry were counted as failed in the retried batch, or
    as answered if the retry replaces answers of a provider."""
    asked_again = sum(view.total for view in views[1:] if ANSWERED_BY in view.options)
    succeeded = sum(view.counts.get(JobState.SUCCEEDED, 0) for view in views) - asked_again
    retried = sum(view.total for view in views[1:]) - asked_again
    ended_badly = sum(count for view in views for state, count in view.counts.items() if state in ENDED_BADLY)
    return Summary(
        total=views[0].total,
        succeeded=succeeded,
        failed=max(ended_badly - retried, 0),
        open=any(view.state in OPEN_BATCH_STATES for view in views),
        cost_usd=sum(view.cost_usd for view in views),
        fallbacks=sum(view.fallbacks for view in views),
        unpriced_calls=sum(view.unpriced_calls for view in views),
    )
