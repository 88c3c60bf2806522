"""What is too old to be kept beside batches and jobs: names of requests, uploads, what tenants used; and how much."""

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
"""How many batches ended before a time."""

COUNT_SINGLES = _count(job, job.c.batch_id == SINGLE, job.c.ended_at < _before)
"""How many single jobs ended before a time."""

COUNT_DELIVERIES = _count(webhook_delivery, webhook_delivery.c.ended_at < _before)
"""How many deliveries ended before a time."""

COUNT_NAMES = _count(idempotency, _old_name)
"""How many names of requests are older than a time, and name nothing that is kept."""

COUNT_UPLOADS = _count(file, _old_upload, _alive)
"""How many uploads are older than a time, and were read by no batch that is kept."""

COUNT_USE = _count(tenant_tally, _old_use)
"""How many counts of what tenants used nobody asks for any more."""

COUNT_SPENT = _count(provider_tally, _old_spending)
"""How many sums of what was spent at providers nobody asks for any more."""

END_UPLOADS = (
    update(file)
    .where(file.c.id.in_(select(file.c.id).where(_old_upload, _alive).limit(SLICE)))
    .values(expires_at=NOW)
    .returning(file.c.id)
)
"""Some old uploads are gone for everybody; what they hold is removed after that."""

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
"""Some uploads that no batch was ever made from are gone for everybody."""

DELETE_NAMES: Delete = delete(idempotency).where(
    _name.in_(select(idempotency.c.tenant, idempotency.c.key).where(_old_name).limit(SLICE))
)
"""Some old names of requests."""

DELETE_USE: Delete = delete(tenant_tally).where(
    _use.in_(select(*tenant_tally.primary_key.columns).where(_old_use).limit(SLICE))
)
"""Some old counts of what tenants used."""

DELETE_SPENT: Delete = delete(provider_tally).where(
    _spending.in_(select(*provider_tally.primary_key.columns).where(_old_spending).limit(SLICE))
)
"""Some old sums of what was spent at providers."""


@dataclass(frozen=True, slots=True)
class Prunable:
    """How many of each kind are too old to be kept."""

    batches: int
    jobs: int  # that belong to no batch
    files: int  # uploads; those of batches go with them
    deliveries: int
    names: int  # given with Idempotency-Key
    tallies: int  # of what tenants used, and what was spent at providers


class Expiry(Area):
    async def prunable(self, before: float) -> Prunable:
        """How much ended, or was made and is of no use any more, before a time."""
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
        """Uploads from before a time are gone for everybody; `expired_files` then shows what is left to remove."""
        ended = 0
        while True:
            async with self._db.write() as connection:
                slice_ = len((await connection.execute(END_UPLOADS, {"before": before})).all())
            ended += slice_
            if not slice_:
                return ended

    async def end_unused_uploads(self, kept_s: float) -> int:
        """Uploads from which nobody made a batch for so long, and that have no time of their own, are gone."""
        ended = 0
        while True:
            async with self._db.write() as connection:
                slice_ = len((await connection.execute(END_UNUSED, {"kept_s": kept_s})).all())
            ended += slice_
            if not slice_:
                return ended

    async def prune_names(self, before: float) -> int:
        """Forget names of requests from before a time whose jobs and batches are not kept; returns how many."""
        return await self._delete_slices(DELETE_NAMES, {"before": before})

    async def prune_use(self, before: float) -> int:
        """Forget what tenants used before a time; what limits and budgets still ask for stays."""
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
