"""Deletes prompts and answers after delivery (`store_content = "until_delivered"`).

A job or batch is marked as delivered when a webhook was accepted, the output file was deleted, or the owner
acknowledged it. Some time later the mark is removed, and with it, if only undelivered content is kept, every prompt and
answer, the caller's content in chain steps, and providers' error messages.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BindParameter, Row, Select, Table, Update, bindparam, exists, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.jobs.submission import SINGLE
from understudy.models.store.chains import cut_chains, drop_unused_chains
from understudy.models.store.erasure import (
    FORGET_OF_BATCH,
    FORGET_REASONS,
    FORGET_SAID,
    FORGET_WORDS,
    NAMED,
    NAMED_IN_VAIN,
    REASONS,
    TENANTS_NAMED_IN_VAIN,
    shorten_answers,
)
from understudy.models.store.ledger import CLOCK, Area
from understudy.models.store.sql import NOW, SLICE, batch, file, job, job_input, tenant, webhook_delivery
from understudy.models.tenants import StoreContent
from understudy.models.webhook_events import DELIVERED, Tried, tells_of_an_end

BATCHES_AT_ONCE = 20

_ids: BindParameter[str] = bindparam("ids", expanding=True)

_mark = {"delivered_at": NOW}


def _marks(what: Table) -> Update:
    return update(what).where(what.c.id.in_(_ids), what.c.delivered_at.is_(None), what.c.ended_at.is_not(None))


MARK_JOBS = _marks(job).where(job.c.batch_id == SINGLE).values(_mark)
"""Mark some single jobs that have ended as delivered."""

MARK_BATCHES = _marks(batch).values(_mark)
"""Mark some batches that have ended as delivered."""

ENDED_AMONG = {
    "job": select(job.c.id).where(job.c.id.in_(_ids), job.c.tenant == bindparam("owner"), job.c.ended_at.is_not(None)),
    "batch": select(batch.c.id).where(
        batch.c.id.in_(_ids), batch.c.tenant == bindparam("owner"), batch.c.ended_at.is_not(None)
    ),
}
"""Those of a tenant's jobs, or batches, that have ended."""


def _delivered(what: Table, *columns: Any) -> Select[Any]:
    untold = exists(
        select(webhook_delivery.c.id).where(
            webhook_delivery.c.object_id == what.c.id, webhook_delivery.c.state == literal_column("'pending'")
        )
    )
    return (
        select(what.c.id, what.c.tenant, *columns)
        .where(what.c.delivered_at <= NOW - bindparam("since_s"), ~untold)
        .order_by(what.c.delivered_at)
    )


DELIVERED_JOBS = _delivered(job).limit(SLICE)
"""Jobs that were delivered long enough ago and have no other receiver pending."""

DELIVERED_BATCHES = _delivered(batch, batch.c.input_file_id).limit(BATCHES_AT_ONCE)
"""The same for batches."""

CONTENT_OF_TENANTS = select(tenant.c.name, tenant.c.store_content).where(tenant.c.store_content.is_not(None))
"""Tenants' own settings of how long content is kept."""

UNMARK_JOBS = update(job).where(job.c.id.in_(_ids)).values(delivered_at=None)

UNMARK_BATCHES = update(batch).where(batch.c.id.in_(_ids)).values(delivered_at=None)
"""Nothing is left to do after a delivery."""

JOBS_AFTER = (
    select(job.c.id)
    .where(job.c.batch_id == bindparam("batch_id"), job.c.id > bindparam("after"))
    .order_by(job.c.id)
    .limit(SLICE)
)
"""A slice of a batch's jobs, by id."""

_with_prompts = exists(
    select(job_input.c.job_id)
    .join(job, job.c.id == job_input.c.job_id)
    .join(batch, batch.c.id == job.c.batch_id)
    .where(batch.c.input_file_id == bindparam("input_id"))
)

END_OUTPUTS = update(file).where(file.c.batch_id == bindparam("of_batch")).values(expires_at=NOW)
"""Expire the output and error file of a batch; their rows are removed afterwards."""

END_INPUT = (
    update(file)
    .where(file.c.id == bindparam("input_id"), file.c.batch_id.is_(None), ~_with_prompts)
    .values(expires_at=NOW)
)
"""Expire the upload that a batch was created from, unless another batch still has prompts from it."""


class Content(Area):
    _has_cut_chains = _has_forgotten = True  # left by an earlier process, which may have been killed

    async def acknowledge(self, kind: str, owner: str, object_id: str) -> bool:
        """The owner has received the results of a "batch" or of a single "job". False: it has not ended."""
        ids = {"ids": [object_id]}
        async with self._db.write() as connection:
            if (await connection.execute(ENDED_AMONG[kind], {**ids, "owner": owner})).first() is None:
                return False
            await connection.execute(MARK_JOBS if kind == "job" else MARK_BATCHES, ids)
            return True

    async def forget_delivered(self, default: StoreContent, since_s: float) -> int:
        """Remove the content of what was delivered `since_s` seconds ago, where only undelivered content is kept.

        Returns how many jobs and batches were examined: 0 when nothing is left.
        """
        words = {"since_s": since_s}
        async with self._db.read() as connection:
            jobs = (await connection.execute(DELIVERED_JOBS, words)).all()
            batches = (await connection.execute(DELIVERED_BATCHES, words)).all()
            said: dict[str, str] = {row.name: row.store_content for row in await connection.execute(CONTENT_OF_TENANTS)}
            in_vain = (await connection.execute(TENANTS_NAMED_IN_VAIN)).scalars().all()

        def forgets(owner: str) -> bool:
            return said.get(owner, default) == "until_delivered"

        if jobs:
            async with self._db.write() as connection:
                await self._forget(connection, [row.id for row in jobs if forgets(row.tenant)])
                await _run(connection, UNMARK_JOBS, [row.id for row in jobs])
        for row in batches:
            if forgets(row.tenant):
                await self._forget_batch(row)
        if batches:
            async with self._db.write() as connection:
                await _run(connection, UNMARK_BATCHES, [row.id for row in batches])
        if forgetful := [each for each in in_vain if forgets(each)]:
            await self._forget_answers(NAMED_IN_VAIN, {"tenants": forgetful, "since_s": since_s})
        if not jobs and not batches:
            await self.clear_up()
        return len(jobs) + len(batches)

    async def clear_up(self, *, pruned: bool = False) -> None:
        """After content was removed, or jobs were `pruned`: delete what only they referred to, and its remains in
        the database files."""
        if pruned:
            self._has_cut_chains = self._has_forgotten = True
        has_reasons = await self._db.row(REASONS) is not None
        if has_reasons:
            await self._db.change(FORGET_REASONS)
            self._has_forgotten = True
        while self._has_cut_chains:
            async with self._db.write() as connection:
                self._has_cut_chains = bool(await drop_unused_chains(connection))
        if self._has_forgotten:
            self._has_forgotten = not await self._db.empty_journal()

    async def _forget_batch(self, row: Row[Any]) -> None:
        after = ""
        while True:
            async with self._db.write() as connection:
                slice_ = {"batch_id": row.id, "after": after}
                ids = (await connection.execute(JOBS_AFTER, slice_)).scalars().all()
                await self._forget(connection, ids)
            if not ids:
                break
            after = ids[-1]
        async with self._db.write() as connection:
            await _run(connection, FORGET_OF_BATCH, [row.id])
            await _run(connection, FORGET_SAID, [row.id])
            await connection.execute(END_OUTPUTS, {"of_batch": row.id})
            if row.input_file_id is not None:
                await connection.execute(END_INPUT, {"input_id": row.input_file_id})

    async def _forget(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        if not ids:
            return
        for statement in (*FORGET_WORDS, FORGET_SAID):
            await _run(connection, statement, ids)
        await shorten_answers(connection, NAMED, {"ids": list(ids)})
        now = (await connection.execute(CLOCK)).scalar_one()
        self._has_cut_chains |= await cut_chains(connection, ids, now)
        self._has_forgotten = True

    async def _forget_answers(self, which: Select[Any], asked: dict[str, Any]) -> None:
        found = await self._db.row(which, asked) is not None
        if found:
            async with self._db.write() as connection:
                await shorten_answers(connection, which, asked)
            self._has_forgotten = True


async def mark_delivered(connection: AsyncConnection, tried: Iterable[Tried]) -> None:
    """In the transaction that records attempts of webhooks: mark what a receiver accepted as delivered."""
    taken = [each.delivery for each in tried if each.state == DELIVERED and tells_of_an_end(each.delivery.event)]
    for kind, statement in (("job.", MARK_JOBS), ("batch.", MARK_BATCHES)):
        await _run(connection, statement, sorted({each.object_id for each in taken if each.event.startswith(kind)}))


async def _run(connection: AsyncConnection, statement: Any, ids: Sequence[str]) -> None:
    if ids:
        await connection.execute(statement, {"ids": list(ids)})
