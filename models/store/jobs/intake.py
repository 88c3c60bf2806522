"""Accepting work: batches filled in slices, then opened in one commit; single jobs."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Text, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.records import SINGLE, Estimate, NewBatch, NewJob
from understudy.models.routing.chain import Endpoint
from understudy.models.state import BatchState, JobState
from understudy.models.store.batches.chains import insert_chains
from understudy.models.store.batches.views import RETRY_OF
from understudy.models.store.disk_space import KEPT_BYTES, ROW_BYTES, check_room, text_bytes
from understudy.models.store.errors import StoreConflict
from understudy.models.store.ledger import CLOCK, Ledger
from understudy.models.store.sql import NOW, BulkInsert, batch, clean, job, job_input

INSERT_BATCH = insert(batch).values(state=str(BatchState.VALIDATING), created_at=NOW, total=0, fill_until=0)
"""A batch whose rows are about to be written; none of them may start."""

BATCH_BEING_FILLED = (
    select(batch.c.expires_at)
    .where(batch.c.id == bindparam("batch_id"), batch.c.state == str(BatchState.VALIDATING))
    .with_for_update(read=True)
)
"""The deadline of a batch that still takes rows, held so that it is not cancelled under our hands."""

INSERT_JOBS = BulkInsert(job)
"""Jobs, queued."""

INSERT_INPUTS = BulkInsert(job_input)
"""The prompts of jobs."""

ADD_STORED = (
    update(batch)
    .where(batch.c.id == bindparam("of_batch"))
    .values(stored_bytes=batch.c.stored_bytes + bindparam("more"))
)
"""More is stored of a batch, by whoever writes its rows."""

OPEN_BATCH = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), batch.c.state == str(BatchState.VALIDATING))
    .values(
        state=str(BatchState.IN_PROGRESS),
        total=bindparam("rows"),
        endpoint=func.coalesce(bindparam("of_lines", type_=Text), batch.c.endpoint),
        started_at=NOW,
        estimated_usd=bindparam("estimated_usd"),
        unpriced_lines=bindparam("unpriced_lines"),
    )
    .returning(batch.c.id)
)
"""Accept a whole batch: from now on its rows may start."""

LATEST_BATCH = select(batch.c.id).order_by(batch.c.created_at.desc(), batch.c.id.desc()).limit(1)
"""The batch that was submitted last."""


class Intake(Ledger):
    async def create_batch(self, new: NewBatch) -> None:
        """Raises StoreConflict when the id or the identity is taken."""
        async with self._db.write() as connection:
            await connection.execute(INSERT_BATCH, batch_row(new))

    async def add_jobs(self, batch_id: str, jobs: Sequence[NewJob]) -> None:
        """Write up to 2,000 rows of a batch that is being filled. A job without a deadline takes the batch's.

        Raises StoreConflict when the batch was opened, cancelled or discarded, or when an id is taken.
        """
        async with self._db.write() as connection:
            expires_at = (await connection.execute(BATCH_BEING_FILLED, {"batch_id": batch_id})).scalar()
            if expires_at is None:
                raise StoreConflict(f"batch {batch_id} takes no more rows; submit them as a new batch")
            await self._insert(connection, batch_id, jobs, expires_at)

    async def add_single(self, jobs: Sequence[NewJob]) -> None:
        """Accept jobs that belong to no batch. Raises StoreConflict when an id is taken."""
        async with self._db.write() as connection:
            await self._insert(connection, SINGLE, jobs, 0.0)

    async def open_batch(
        self, batch_id: str, total: int, endpoint: Endpoint | None = None, estimate: Estimate | None = None
    ) -> None:
        """Accept the batch. `endpoint` when it was not known before its lines; `estimate` of what it will cost.

        Raises StoreConflict when it was cancelled or discarded meanwhile, or opened before.
        """
        async with self._db.write() as connection:
            await self._open(connection, batch_id, total, endpoint, estimate)

    async def retries_of(self, batch_id: str) -> list[str]:
        """The retries of a batch, the retries of those, and so on, in this order."""
        found: list[str] = []
        waiting = [batch_id]
        async with self._db.read() as connection:
            while waiting:
                retries = list((await connection.execute(RETRY_OF, {"batch_id": waiting.pop(0)})).scalars())
                found += retries
                waiting += retries
        return found

    async def latest_batch(self, tenant: str | None = None) -> str | None:
        """The batch that a tenant submitted last; None: that anybody submitted."""
        latest = LATEST_BATCH if tenant is None else LATEST_BATCH.where(batch.c.tenant == tenant)
        async with self._db.read() as connection:
            return (await connection.execute(latest)).scalar()

    async def _open(
        self,
        connection: AsyncConnection,
        batch_id: str,
        total: int,
        endpoint: Endpoint | None,
        estimate: Estimate | None,
    ) -> None:
        words = {"batch_id": batch_id, "rows": total, "of_lines": endpoint}
        done = await connection.execute(OPEN_BATCH, {**words, **estimated(estimate)})
        if done.first() is None:
            raise StoreConflict(f"batch {batch_id} cannot be opened; it is not being filled")

    async def _insert(
        self,
        connection: AsyncConnection,
        batch_id: str,
        jobs: Sequence[NewJob],
        expires_at: float,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        prompts_bytes = sum(text_bytes(each.body) + text_bytes(each.extra) for each in jobs)
        await check_room(self._db, connection, prompts_bytes, len(jobs), kept_bytes)
        now = (await connection.execute(CLOCK)).scalar_one()
        chain_ids = await insert_chains(connection, jobs, now)
        rows = [_job_row(each, batch_id, chain_ids[id(each.chain)], expires_at, now) for each in jobs]
        await INSERT_JOBS.run(connection, rows)
        inputs = [{"job_id": each.id, "body": each.body, "extra": each.extra} for each in jobs]
        await INSERT_INPUTS.run(connection, inputs)
        if batch_id != SINGLE:
            await connection.execute(ADD_STORED, {"of_batch": batch_id, "more": sum(row["bytes"] for row in rows)})


def estimated(estimate: Estimate | None) -> dict[str, Any]:
    estimate = estimate or Estimate()
    return {"estimated_usd": estimate.usd, "unpriced_lines": estimate.unpriced_lines}


def batch_row(new: NewBatch) -> dict[str, Any]:
    return {
        "id": new.id,
        "tenant": new.tenant,
        "priority": int(new.priority),
        "endpoint": new.endpoint,
        "source": clean(new.source),
        "identity": new.identity,
        "retry_of": new.retry_of,
        "note": orjson.dumps(new.metadata).decode(),
        "expires_at": new.expires_at,
        "input_file_id": new.input_file_id,
        "completion_window": new.completion_window,
        "options": new.options,
        "callback_url": new.callback_url,
        "output_expires_s": new.output_expires_s,
        "request_hash": new.request_hash,
        "weight": new.weight,
        "budget_usd": new.budget_usd,
        "runs_until": new.runs_until,
        "unpriced_lines": 0,
        "canary_passed": False,
        "stored_bytes": 0,
        "waiting_at": 0.0,
    }


def _job_row(new: NewJob, batch_id: str, chain_id: str, expires_at: float, now: float) -> dict[str, Any]:
    return {
        "id": new.id,
        "batch_id": batch_id,
        "tenant": new.tenant,
        "custom_id": new.custom_id,
        "line": new.line,
        "chain_id": chain_id,
        "priority": int(new.priority),
        "state": str(JobState.QUEUED),
        "not_before": new.not_before,
        "expires_at": new.expires_at or expires_at if new.expires_in_s is None else now + new.expires_in_s,
        "tokens": new.tokens,
        "max_output_tokens": new.max_output_tokens,
        "bytes": ROW_BYTES + text_bytes(new.body) + text_bytes(new.extra),
        "claim_no": 0,
        "cancel_requested": False,
        "crashes": 0,
        "attempts": 0,
        "created_at": now,
        "worker_id": None,
        "progress": None,
        "wait_reason": None,
        "callback_url": new.callback_url,
        "note": None if new.metadata is None else orjson.dumps(new.metadata).decode(),
        "started_at": None,
        "ended_at": None,
        "delivered_at": None,
    }
