"""A batch and its retries, oldest first, treated as one: their ids and their combined progress."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from understudy.models.jobs.views import BatchView, OutputRow
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
    unanswered_jobs = sum(count for view in views for state, count in view.counts.items() if state in ENDED_BADLY)
    return Summary(
        total=views[0].total,
        succeeded=succeeded,
        failed=max(unanswered_jobs - retried, 0),
        open=any(view.state in OPEN_BATCH_STATES for view in views),
        cost_usd=sum(view.cost_usd for view in views),
        fallbacks=sum(view.fallbacks for view in views),
        unpriced_calls=sum(view.unpriced_calls for view in views),
    )


ROWS_AT_ONCE = 500


async def rows_of(store: Store, batch_id: str) -> AsyncIterator[OutputRow]:
    """The finished lines in input order: of the whole run that the batch belongs to, by its current input; otherwise of
    the batch, with the answers of its retries."""
    run_id = await store.runs.run_of(batch_id)
    rows = store.outputs.of_run(run_id) if run_id else newest_rows(store, await line_of(store, batch_id))
    async for row in rows:
        yield row


@dataclass(frozen=True, slots=True)
class _Retried:
    job_id: str
    answered: bool


async def newest_rows(store: Store, batches: Sequence[str]) -> AsyncIterator[OutputRow]:
    """Every line once, in input order. `batches`: a batch and its retries, oldest first.

    Memory: proportional to the retried lines, not to the batch.
    """
    retried: dict[str, _Retried] = {}
    for batch_id in batches[1:]:
        async for name, job_id, state in store.outputs.ended_names(batch_id):
            answered = state is JobState.SUCCEEDED
            if answered or name not in retried or not retried[name].answered:
                retried[name] = _Retried(job_id, answered)
    page: list[OutputRow] = []
    if batches:
        async for row in store.outputs.of_batch(batches[0]):
            page.append(row)
            if len(page) == ROWS_AT_ONCE:
                for shown in await _with_retries(store, page, retried):
                    yield shown
                page = []
        for shown in await _with_retries(store, page, retried):
            yield shown


async def _with_retries(store: Store, page: list[OutputRow], retried: dict[str, _Retried]) -> list[OutputRow]:
    """Rows of the first batch, replaced by newer records where those count."""
    newer = {
        row.custom_id: again.job_id
        for row in page
        if (again := retried.get(row.custom_id)) and (again.answered or row.state is not JobState.SUCCEEDED)
    }
    rows = await store.outputs.of_jobs(list(newer.values()))
    return [rows.get(newer.get(row.custom_id, ""), row) for row in page]
