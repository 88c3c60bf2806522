"""For each line that was asked several times, the record to show: the newest answer, or else the newest record."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from understudy.models.records import OutputRow
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.producer.runs.retry_chain import line_of

ROWS_AT_ONCE = 500


async def rows_of(store: Store, batch_id: str) -> AsyncIterator[OutputRow]:
    """The finished lines in input order: of the whole run that the batch belongs to, by its current input; otherwise of
    the batch, with the answers of its retries."""
    run_id = await store.runs.run_of(batch_id)
    rows = store.runs.outputs(run_id) if run_id else newest_rows(store, await line_of(store, batch_id))
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
        async for name, job_id, state in store.batches.ended_names(batch_id):
            answered = state is JobState.SUCCEEDED
            if answered or name not in retried or not retried[name].answered:
                retried[name] = _Retried(job_id, answered)
    page: list[OutputRow] = []
    if batches:
        async for row in store.batches.outputs(batches[0]):
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
    rows = await store.batches.output_rows(list(newer.values()))
    return [rows.get(newer.get(row.custom_id, ""), row) for row in page]
