"""Deletes old data in slices that hold no lock for long: batches, jobs, uploads, idempotency keys, usage counters."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Delete,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from understudy.models.jobs.submission import SINGLE
from understudy.models.store.errors import StoreError
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    NOW,
    SLICE,
    batch,
    file,
    idempotency,
    job,
    provider_tally,
    run,
    run_line,
    tenant_tally,
    webhook_delivery,
)
from understudy.models.store.tallies import ACCEPTED, ACCEPTED_PERIOD_S, SPENT, SPENT_PERIOD_S
from understudy.models.store.tenants import first_day_of_month
from understudy.models.store.work.discarding import delete_jobs, discard_batch

ENDED_BATCHES = select(batch.c.id).where(batch.c.ended_at < bindparam("before")).order_by(batch.c.id)
"""The batches that ended before a time."""

ENDED_SINGLES = (
    select(job.c.id)
    .where(job.c.batch_id == SINGLE, job.c.id > bindparam("after"), job.c.ended_at < bindparam("before"))
    .order_by(job.c.id)
    .limit(SLICE)
)
"""A slice of single jobs that ended before a time, by id."""

_lines, _idle = run_line.alias("lines"), run.c.taken_until <= NOW

_asked = exists(
    select(_lines.c.run_id).where(
        _lines.c.run_id == run.c.id, or_(_lines.c.job_id.is_not(None), _lines.c.again_id.is_not(None))
    )
)

RUNS_NEVER_ASKED = select(run.c.id).where(
    _idle, ~_asked, exists(select(_lines.c.run_id).where(_lines.c.run_id == run.c.id))
)
"""Runs that no process owns and whose lines have no jobs any more: a repeated run compares everything in any case."""

_place = tuple_(run_line.c.version, run_line.c.position)

DELETE_LINES = delete(run_line).where(
    run_line.c.run_id == bindparam("of_run"),
    exists(select(run.c.id).where(run.c.id == bindparam("of_run"), _idle)),
    _place.in_(
        select(run_line.c.version, run_line.c.position).where(run_line.c.run_id == bindparam("of_run")).limit(SLICE)
    ),
)
"""Some lines of a run that no process owns."""

_before: BindParameter[float] = bindparam("before")

_kept_job = exists(
    select(job.c.id).where(
        job.c.id == idempotency.c.object_id, or_(job.c.ended_at.is_(None), job.c.ended_at >= _before)
    )
)

_kept_batch = or_(batch.c.ended_at.is_(None), batch.c.ended_at >= _before)

_kept_made = exists(select(batch.c.id).where(batch.c.id == idempotency.c.object_id, _kept_batch))

_kept_reader = exists(select(batch.c.id).where(batch.c.input_file_id == file.c.id, _kept_batch))

_old_name = and_(idempotency.c.created_at < _before, ~_kept_job, ~_kept_made)

_old_upload = and_(file.c.batch_id.is_(None), file.c.created_at < _before, ~_kept_reader)

_alive = or_(file.c.expires_at.is_(None), file.c.expires_at > NOW)

_old_use = or_(
    and_(tenant_tally.c.kind == ACCEPTED, tenant_tally.c.period < bindparam("minute")),
    and_(tenant_tally.c.kind == SPENT, tenant_tally.c.period < bindparam("day")),
)

_old_spending = provider_tally.c.day < bindparam("day")


def _count(what: Table, *conditions: ColumnElement[bool]) -> Select[Any]:
    return select(func.count()).select_from(what).where(*conditions)


COUNT_BATCHES = _count(batch, batch.c.ended_at < _before)
"""Number of batches that ended before a time."""

COUNT_SINGLES = _count(job, job.c.batch_id == SINGLE, job.c.ended_at < _before)
"""Number of single jobs that ended before a time."""

COUNT_DELIVERIES = _count(webhook_delivery, webhook_delivery.c.ended_at < _before)
"""Number of deliveries that ended before a time."""

COUNT_NAMES = _count(idempotency, _old_name)
"""Number of idempotency keys older than a time that refer to nothing kept."""

COUNT_UPLOADS = _count(file, _old_upload, _alive)
"""Number of uploads older than a time that no kept batch has read."""

COUNT_USE = _count(tenant_tally, _old_use)
"""Number of usage counters that are no longer needed."""

COUNT_SPENT = _count(provider_tally, _old_spending)
"""Number of provider cost sums that are no longer needed."""


def _end_some(*conditions: ColumnElement[bool]) -> Update:
    return update(file).where(file.c.id.in_(select(file.c.id).where(*conditions).limit(SLICE))).values(expires_at=NOW)


END_UPLOADS = _end_some(_old_upload, _alive)
"""Expire some old uploads; their content is removed afterwards."""

END_UNUSED = _end_some(
    file.c.batch_id.is_(None),
    file.c.expires_at.is_(None),
    file.c.created_at < NOW - bindparam("kept_s"),
    ~exists(select(batch.c.id).where(batch.c.input_file_id == file.c.id)),
)
"""Expire some uploads that no batch ever used."""


def _delete_some(of: Table, condition: ColumnElement[bool]) -> Delete:
    key = of.primary_key.columns
    return delete(of).where(tuple_(*key).in_(select(*key).where(condition).limit(SLICE)))


DELETE_NAMES = _delete_some(idempotency, _old_name)
"""Some old idempotency keys."""

DELETE_USE = _delete_some(tenant_tally, _old_use)
"""Some old usage counters."""

DELETE_SPENT = _delete_some(provider_tally, _old_spending)
"""Some old provider cost sums."""


@dataclass(frozen=True, slots=True)
class Prunable:
    """How many rows of each kind are too old to keep."""

    batches: int
    jobs: int  # that belong to no batch
    files: int  # uploads; those of batches go with them
    deliveries: int
    names: int  # given with Idempotency-Key
    tallies: int  # usage of tenants, and cost at providers


class Retention(Area):
    async def discard_batch(self, batch_id: str) -> None:
        """Delete a batch that was never opened or has ended, with all its rows, in slices.

        Raises StoreConflict if the batch is open.
        """
        await discard_batch(self._db, batch_id)

    async def discard_refused(self, batch_id: str) -> None:
        """Discard a batch that was rejected. Whatever cannot be deleted now is deleted in the background."""
        with suppress(StoreError):
            await discard_batch(self._db, batch_id)

    async def prune(self, before: float) -> tuple[int, int]:
        """Delete batches and single jobs that ended before a time; returns how many of each."""
        batches = await self._db.values(ENDED_BATCHES, {"before": before})
        for each in batches:
            await discard_batch(self._db, each)
        singles = await self._prune_singles(before)
        await self._prune_lines()
        return len(batches), singles

    async def _prune_lines(self) -> None:
        for each in await self._db.values(RUNS_NEVER_ASKED):
            await self._db.change_slices(DELETE_LINES, {"of_run": each})

    async def _prune_singles(self, before: float) -> int:
        deleted, after = 0, ""
        while True:
            async with self._db.write() as connection:
                asked = {"before": before, "after": after}
                ids = (await connection.execute(ENDED_SINGLES, asked)).scalars().all()
                await delete_jobs(connection, ids)
            if not ids:
                return deleted
            deleted, after = deleted + len(ids), ids[-1]

    async def prunable(self, before: float) -> Prunable:
        """How much ended, or was created and is no longer needed, before a time."""
        use = await self._use_before(before)
        counted = [
            int(await self._db.value(each, asked))
            for each, asked in (
                (COUNT_BATCHES, {"before": before}),
                (COUNT_SINGLES, {"before": before}),
                (COUNT_UPLOADS, {"before": before}),
                (COUNT_DELIVERIES, {"before": before}),
                (COUNT_NAMES, {"before": before}),
                (COUNT_USE, use),
                (COUNT_SPENT, {"day": use["day"]}),
            )
        ]
        counted[-2:] = [sum(counted[-2:])]
        return Prunable(*counted)

    async def end_old_uploads(self, before: float) -> int:
        """Expire uploads from before a time; `files.expired` then lists what is left to remove."""
        return await self._db.change_slices(END_UPLOADS, {"before": before})

    async def end_unused_uploads(self, kept_s: float) -> int:
        """Expire uploads that have been unused for this long and have no expiry of their own."""
        return await self._db.change_slices(END_UNUSED, {"kept_s": kept_s})

    async def prune_names(self, before: float) -> int:
        """Delete idempotency keys from before a time whose jobs and batches are gone; returns how many."""
        return await self._db.change_slices(DELETE_NAMES, {"before": before})

    async def prune_use(self, before: float) -> int:
        """Delete usage counters from before a time, except what limits and budgets still need."""
        use = await self._use_before(before)
        used = await self._db.change_slices(DELETE_USE, use)
        return used + await self._db.change_slices(DELETE_SPENT, {"day": use["day"]})

    async def _use_before(self, before: float) -> dict[str, int]:
        now = await self._ledger.now()
        return {
            "minute": int(min(before, now - 600) // ACCEPTED_PERIOD_S),
            "day": min(int(before // SPENT_PERIOD_S), first_day_of_month(now)),
        }
