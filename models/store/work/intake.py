"""Accepting work: batches filled in slices, then opened in one commit; single jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Text, bindparam, func, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.jobs.submission import SINGLE, Estimate, NewBatch, NewJob
from understudy.models.routing.chain import Endpoint
from understudy.models.state import BatchState
from understudy.models.store.chains import insert_chains
from understudy.models.store.database.disk_space import KEPT_BYTES, check_room, job_bytes, text_bytes
from understudy.models.store.database.engine import Database
from understudy.models.store.errors import StoreConflict
from understudy.models.store.ledger import CLOCK, Area
from understudy.models.store.sql import NOW, BulkInsert, batch, clean, columns_of, idempotency, job, job_input, upsert

INSERT_BATCH = insert(batch).values(state=str(BatchState.VALIDATING), created_at=NOW, total=0, fill_until=0)
"""A batch whose rows are about to be written; none of them may start yet."""

BATCH_BEING_FILLED = (
    select(batch.c.expires_at)
    .where(batch.c.id == bindparam("batch_id"), batch.c.state == str(BatchState.VALIDATING))
    .with_for_update(read=True)
)
"""The deadline of a batch that still takes rows, locked so that it cannot be cancelled in the meantime."""

INSERT_JOBS = BulkInsert(job)
"""Jobs, queued."""

INSERT_INPUTS = BulkInsert(job_input)
"""The prompts of jobs."""

ADD_STORED = (
    update(batch)
    .where(batch.c.id == bindparam("of_batch"))
    .values(stored_bytes=batch.c.stored_bytes + bindparam("more"))
)
"""Account for more stored bytes of a batch."""

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
"""Accept a whole batch: its rows may now start."""

REPEATED_WITHIN_S = 3600.0
"""HTTP clients retry within this time; after it, an equal request is a new one."""

EARLIER_REQUEST = (
    select(batch.c.id)
    .where(
        batch.c.request_hash == bindparam("request_hash"),
        batch.c.tenant == bindparam("tenant"),
        batch.c.created_at > NOW - REPEATED_WITHIN_S,
    )
    .order_by(batch.c.id.desc())
    .limit(1)
)
"""The newest batch that an equal request of the same tenant created recently."""

TAKE_REQUEST_LOCK = select(
    func.pg_advisory_xact_lock(func.hashtextextended(bindparam("request_hash"), literal_column("0")))
)
"""Wait until no other process is accepting an equal request; on SQLite writers take turns anyway."""

NAME_REQUEST = upsert(idempotency).values(created_at=NOW).on_conflict_do_nothing().returning(idempotency.c.object_id)
"""Record a request under its idempotency key, unless the key exists."""

NAMED_REQUEST = select(idempotency).where(
    idempotency.c.tenant == bindparam("tenant"), idempotency.c.key == bindparam("key")
)
"""The request recorded under a key, and what it created."""


@dataclass(frozen=True, slots=True)
class NamedRequest:
    """A request with an `Idempotency-Key`, and the hash of its content."""

    key: str
    body_hash: str


class OtherRequest(StoreConflict):
    """The key was used for a request with different content."""

    status = 422
    code = "idempotency_key_reused"
    param = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Made:
    """What a request with an idempotency key created when it was accepted."""

    object_id: str
    answer: str | None  # JSON, if the request created several jobs


class Intake(Area):
    async def create_batch(self, new: NewBatch) -> None:
        """Raises StoreConflict if the id or the identity is taken."""
        await self._db.change(INSERT_BATCH, batch_row(new))

    async def add_jobs(self, batch_id: str, jobs: Sequence[NewJob]) -> None:
        """Write up to 2,000 rows of a batch that is being filled. Jobs without a deadline get the batch's.

        Raises StoreConflict if the batch was opened, cancelled or discarded, or if an id is taken.
        """
        async with self._db.write() as connection:
            expires_at = (await connection.execute(BATCH_BEING_FILLED, {"batch_id": batch_id})).scalar()
            if expires_at is None:
                raise StoreConflict(f"batch {batch_id} takes no more rows; submit them as a new batch")
            await insert_jobs(self._db, connection, batch_id, jobs, expires_at)

    async def open_batch(
        self, batch_id: str, total: int, endpoint: Endpoint | None = None, estimate: Estimate | None = None
    ) -> None:
        """Accept the batch. `endpoint` if it was unknown before its lines were read; `estimate` of its cost.

        Raises StoreConflict if it was opened, cancelled or discarded in the meantime.
        """
        async with self._db.write() as connection:
            await _open(connection, batch_id, total, endpoint, estimate)

    async def made_by(self, tenant: str, named: NamedRequest) -> Made | None:
        """What the same request created before. Raises OtherRequest if its key was used for another request."""
        async with self._db.read() as connection:
            return await _made_before(connection, tenant, named)

    async def accept_jobs(
        self, tenant: str, jobs: Sequence[NewJob], named: NamedRequest | None = None, answer: str | None = None
    ) -> Made | None:
        """Accept jobs outside of batches, all or none. If the same request with this key was already accepted, returns
        what it created, and nothing is accepted.

        Raises OtherRequest, and StoreConflict if an id is taken.
        """
        async with self._db.write() as connection:
            if named is not None:
                made = await _name(connection, tenant, named, jobs[0].id if jobs else "", answer)
                if made is not None:
                    return made
            if jobs:
                await insert_jobs(self._db, connection, SINGLE, jobs, 0.0)
        return None

    async def batch_made_before(
        self, tenant: str, request_hash: str, *, named: NamedRequest | None, repeated: bool
    ) -> str | None:
        """The batch that the same request has already created.

        It is the same request if its idempotency key says so, or if it is `repeated` by an HTTP client and equal to one
        of the last hour. Raises OtherRequest.
        """
        async with self._db.read() as connection:
            if named is not None:
                made = await _made_before(connection, tenant, named)
                return None if made is None else made.object_id
            asked = {"request_hash": request_hash, "tenant": tenant}
            found: str | None = (await connection.execute(EARLIER_REQUEST, asked)).scalar() if repeated else None
            return found

    async def accept_batch(self, new: NewBatch, named: NamedRequest | None = None, *, repeated: bool = False) -> str:
        """Accept a batch that is filled later; returns its id, or the id of the batch that the same request created
        in the meantime (see `batch_made_before`). Raises OtherRequest."""
        async with self._db.write() as connection:
            if named is not None:
                made = await _name(connection, new.tenant, named, new.id)
                if made is not None:
                    return made.object_id
            elif new.request_hash is not None:
                asked = {"request_hash": new.request_hash, "tenant": new.tenant}
                if self._db.dialect == "postgresql":
                    await connection.execute(TAKE_REQUEST_LOCK, {"request_hash": new.request_hash})
                earlier: str | None = (await connection.execute(EARLIER_REQUEST, asked)).scalar() if repeated else None
                if earlier is not None:
                    return earlier
            await connection.execute(INSERT_BATCH, batch_row(new))
        return new.id

    async def open_named(
        self,
        batch_id: str,
        total: int,
        endpoint: Endpoint | None,
        estimate: Estimate | None,
        tenant: str,
        named: NamedRequest,
    ) -> str:
        """`open_batch` for a request with an idempotency key; if the request was already accepted, returns the id of
        what it created, and this batch is not opened. Raises OtherRequest, StoreConflict."""
        async with self._db.write() as connection:
            made = await _name(connection, tenant, named, batch_id)
            if made is not None:
                return made.object_id
            await _open(connection, batch_id, total, endpoint, estimate)
        return batch_id


def estimated(estimate: Estimate | None) -> dict[str, Any]:
    estimate = estimate or Estimate()
    return {"estimated_usd": estimate.usd, "unpriced_lines": estimate.unpriced_lines}


def batch_row(new: NewBatch) -> dict[str, Any]:
    note = orjson.dumps(new.metadata).decode()
    given = {"priority": int(new.priority), "source": clean(new.source), "note": note, "stored_bytes": 0}
    return {**columns_of(new, batch), **given}


def _job_row(new: NewJob, batch_id: str, chain_id: str, expires_at: float, now: float, size: int) -> dict[str, Any]:
    return {
        **columns_of(new, job),
        "batch_id": batch_id,
        "chain_id": chain_id,
        "priority": int(new.priority),
        "expires_at": new.expires_at or expires_at if new.expires_in_s is None else now + new.expires_in_s,
        "bytes": size,
        "created_at": now,
        "note": None if new.metadata is None else orjson.dumps(new.metadata).decode(),
    }


async def _open(
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


async def insert_jobs(
    database: Database,
    connection: AsyncConnection,
    batch_id: str,
    jobs: Sequence[NewJob],
    expires_at: float,
    kept_bytes: int = KEPT_BYTES,
) -> None:
    sizes = job_bytes(jobs)
    await check_room(database, connection, sum(sizes), kept_bytes)
    now = (await connection.execute(CLOCK)).scalar_one()
    chain_ids = await insert_chains(connection, jobs, now)
    rows = [
        _job_row(each, batch_id, chain_ids[id(each.chain)], expires_at, now, size)
        for each, size in zip(jobs, sizes, strict=True)
    ]
    await INSERT_JOBS.run(connection, rows)
    inputs = [{"job_id": each.id, "body": each.body, "extra": each.extra} for each in jobs]
    await INSERT_INPUTS.run(connection, inputs)
    if batch_id != SINGLE:
        await connection.execute(ADD_STORED, {"of_batch": batch_id, "more": sum(sizes)})


async def _made_before(connection: AsyncConnection, tenant: str, named: NamedRequest) -> Made | None:
    row = (await connection.execute(NAMED_REQUEST, {"tenant": tenant, "key": named.key})).first()
    if row is None:
        return None
    if row.body_hash != named.body_hash:
        raise OtherRequest("this Idempotency-Key was used for another body; send the same body again, or another key")
    return Made(row.object_id, row.answer)


async def _name(
    connection: AsyncConnection, tenant: str, named: NamedRequest, object_id: str, answer: str | None = None
) -> Made | None:
    """Record what a request with an idempotency key creates; if it was already accepted, return what it created and
    record nothing."""
    what = {"object_id": object_id, "answer": answer, "answer_bytes": text_bytes(answer)}
    row = {"tenant": tenant, "key": named.key, "body_hash": named.body_hash, **what}
    if (await connection.execute(NAME_REQUEST, row)).first() is not None:
        return None
    return await _made_before(connection, tenant, named)
