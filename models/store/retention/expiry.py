"""Retention of idempotency keys, uploads and usage counters."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Delete,
    Select,
    Table,
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

from understudy.models.records import SINGLE
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    NOW,
    batch,
    file,
    idempotency,
    job,
    provider_tally,
    tenant_tally,
    webhook_delivery,
)
from understudy.models.store.tallies import ACCEPTED, ACCEPTED_PERIOD_S, SPENT, SPENT_PERIOD_S
from understudy.models.store.tenants.usage import first_day_of_month

SLICE = 2_000

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
_name = tuple_(idempotency.c.tenant, idempotency.c.key)
_use = tuple_(*tenant_tally.primary_key.columns)
_old_spending = provider_tally.c.day < bindparam("day")
_spending = tuple_(*provider_tally.primary_key.columns)


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

END_UPLOADS = (
    update(file)
    .where(file.c.id.in_(select(file.c.id).where(_old_upload, _alive).limit(SLICE)))
    .values(expires_at=NOW)
    .returning(file.c.id)
)
"""Expire some old uploads; their content is removed afterwards."""

END_UNUSED = (
    update(file)
    .where(
        file.c.id.in_(
            select(file.c.id)
            .where(
                file.c.batch_id.is_(None),
                file.c.expires_at.is_(None),
                file.c.created_at < NOW - bindparam("kept_s"),
                ~exists(select(batch.c.id).where(batch.c.input_file_id == file.c.id)),
            )
            .limit(SLICE)
        )
    )
    .values(expires_at=NOW)
    .returning(file.c.id)
)
"""Expire some uploads that no batch ever used."""

DELETE_NAMES: Delete = delete(idempotency).where(
    _name.in_(select(idempotency.c.tenant, idempotency.c.key).where(_old_name).limit(SLICE))
)
"""Some old idempotency keys."""

DELETE_USE: Delete = delete(tenant_tally).where(
    _use.in_(select(*tenant_tally.primary_key.columns).where(_old_use).limit(SLICE))
)
"""Some old usage counters."""

DELETE_SPENT: Delete = delete(provider_tally).where(
    _spending.in_(select(*provider_tally.primary_key.columns).where(_old_spending).limit(SLICE))
)
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


class Expiry(Area):
    async def prunable(self, before: float) -> Prunable:
        """How much ended, or was created and is no longer needed, before a time."""
        use = await self._use_before(before)
        async with self._db.read() as connection:
            counted = [
                int((await connection.execute(each, asked)).scalar_one())
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
        ended = 0
        while True:
            async with self._db.write() as connection:
                slice_ = len((await connection.execute(END_UPLOADS, {"before": before})).all())
            ended += slice_
            if not slice_:
                return ended

    async def end_unused_uploads(self, kept_s: float) -> int:
        """Expire uploads that have been unused for this long and have no expiry of their own."""
        ended = 0
        while True:
            async with self._db.write() as connection:
                slice_ = len((await connection.execute(END_UNUSED, {"kept_s": kept_s})).all())
            ended += slice_
            if not slice_:
                return ended

    async def prune_names(self, before: float) -> int:
        """Delete idempotency keys from before a time whose jobs and batches are gone; returns how many."""
        return await self._delete_slices(DELETE_NAMES, {"before": before})

    async def prune_use(self, before: float) -> int:
        """Delete usage counters from before a time, except what limits and budgets still need."""
        use = await self._use_before(before)
        used = await self._delete_slices(DELETE_USE, use)
        return used + await self._delete_slices(DELETE_SPENT, {"day": use["day"]})

    async def _use_before(self, before: float) -> dict[str, int]:
        now = await self._ledger.now()
        return {
            "minute": int(min(before, now - 600) // ACCEPTED_PERIOD_S),
            "day": min(int(before // SPENT_PERIOD_S), first_day_of_month(now)),
        }

    async def _delete_slices(self, statement: Delete, asked: dict[str, float] | dict[str, int]) -> int:
        deleted = 0
        while True:
            async with self._db.write() as connection:
                slice_ = (await connection.execute(statement, asked)).rowcount
            deleted += slice_
            if not slice_:
                return deleted
