"""Jobs claimed by workers: the guarded start, the fenced settle."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Integer,
    Row,
    Text,
    Update,
    and_,
    bindparam,
    case,
    exists,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.jobs.execution import AttemptRecord, ResultRecord, Settled, StartedJob
from understudy.models.jobs.submission import SINGLE
from understudy.models.jobs.suspects import ALONE_AT
from understudy.models.jobs.wait_reasons import Waiting, as_json
from understudy.models.state import JobState, Priority
from understudy.models.store.ledger import CLOCK, Area
from understudy.models.store.outbox import ENDED_JOB, announce_jobs
from understudy.models.store.paging import octets
from understudy.models.store.sql import (
    GOES_ON,
    NOW,
    BulkInsert,
    JsonRows,
    attempt,
    batch,
    clean,
    columns_of,
    hidden,
    job,
    job_input,
    result,
    tenant,
    whole,
    worker,
)
from understudy.models.store.tallies import Tallies, answer_bytes

_lease = (
    select(worker.c.id)
    .where(worker.c.id == bindparam("holder"), worker.c.lease_until > NOW)
    # Rescue deletes this row first: it waits for us, or we see that it is gone.
    .with_for_update(read=True, key_share=True)
    .cte("lease")
)

_may_run = or_(
    job.c.batch_id == SINGLE,
    exists().where(batch.c.id == job.c.batch_id, GOES_ON),
)

_running = job.alias("running")


def _runs_with(crashes: int) -> ColumnElement[bool]:
    state = _running.c.state == literal_column(f"'{JobState.RUNNING}'")
    return exists(select(_running.c.id).where(state, _running.c.crashes >= crashes))


_nobody_else_is_suspected = or_(
    job.c.crashes == 0,
    and_(job.c.crashes < ALONE_AT, ~_runs_with(ALONE_AT)),
    and_(job.c.crashes >= ALONE_AT, ~_runs_with(1)),
)
"""While a job runs alone, no other worker runs a suspect: one of them may kill them all."""

_startable = (
    select(job.c.id)
    .where(
        job.c.id.in_(bindparam("ids", expanding=True)),
        hidden(JobState.QUEUED),
        job.c.not_before <= NOW,
        job.c.expires_at > NOW,
        _may_run,
        _nobody_else_is_suspected,
        exists(select(_lease.c.id)),
    )
    .order_by(job.c.id)
    .with_for_update(skip_locked=True, of=job)
)

LARGE_PROMPT_BYTES = 256 * 1024
"""Larger prompts are not read with their claim, because many jobs are claimed at once."""

_prompt_bytes = octets(job_input.c.body)


def _of_its_prompt(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return select(column).where(job_input.c.job_id == job.c.id).scalar_subquery()


PROMPT = select(job_input.c.body).where(job_input.c.job_id == bindparam("job_id"))

START = (
    update(job)
    .where(job.c.id.in_(_startable))
    .values(
        state=str(JobState.RUNNING),
        worker_id=bindparam("holder"),
        claim_no=job.c.claim_no + 1,
        started_at=NOW,
        waiting=None,
    )
    .returning(
        *(job.c[name] for name in StartedJob.__dataclass_fields__ if name in job.c and name != "body"),
        _of_its_prompt(case((_prompt_bytes <= LARGE_PROMPT_BYTES, job_input.c.body))).label("body"),
        _of_its_prompt(case((_prompt_bytes > LARGE_PROMPT_BYTES, _prompt_bytes))).label("large_bytes"),
        exists(select(batch.c.id).where(batch.c.id == job.c.batch_id, batch.c.budget_usd.is_not(None))).label(
            "batch_budget"
        ),
        exists(select(tenant.c.name).where(tenant.c.name == job.c.tenant, tenant.c.usd_per_month.is_not(None))).label(
            "tenant_budget"
        ),
    )
)
"""Claim those of some jobs that are queued, due, before their deadline and in an active batch, for a worker with a
live lease; a job that must run alone only while no other suspect runs, and other suspects only while it does not."""


@cache
def settle_jobs(dialect: str) -> tuple[Update, JsonRows]:
    """Write outcomes of jobs where the claim is still valid; a put-back job that was cancelled ends."""
    given = JsonRows(
        dialect,
        {
            "id": Text(),
            "claim_no": Integer(),
            "state": Text(),
            "not_before": Double(),
            "progress": Text(),
            "waiting": Text(),
            "calls": BigInteger(),
            "answer_bytes": BigInteger(),
        },
    )
    new = given.source.c
    returns = new.state == literal_column("'queued'")
    cancelled = and_(returns, job.c.cancel_requested)
    statement = (
        update(job)
        .where(
            job.c.id == new.id,
            job.c.claim_no == new.claim_no,
            job.c.worker_id == bindparam("holder"),
            hidden(JobState.RUNNING),
        )
        .values(
            state=case((cancelled, str(JobState.CANCELLED)), else_=new.state),
            worker_id=case((returns, None), else_=job.c.worker_id),
            ended_at=case((and_(returns, ~job.c.cancel_requested), None), else_=NOW),
            not_before=new.not_before,
            progress=new.progress,
            waiting=new.waiting,
            attempts=job.c.attempts + new.calls,
            answer_bytes=new.answer_bytes,
        )
        .returning(job.c.claim_no, *ENDED_JOB)
    )
    return statement, given


INSERT_RESULTS = BulkInsert(result)
"""The single terminal record of each job just settled."""

INSERT_ATTEMPTS = BulkInsert(attempt, conflict="ignored", returning="id")
"""Provider calls, each once, however often it is reported."""


class Claims(Area):
    async def start(self, worker_id: str, ids: Sequence[str]) -> list[StartedJob]:
        """Claim jobs for this worker, in the order given. Jobs that may not start now, or that another worker holds,
        are left out."""
        if not ids:
            return []
        async with self._db.write() as connection:
            rows = (await connection.execute(START, {"holder": worker_id, "ids": list(ids)})).mappings().all()
        place = {job_id: index for index, job_id in enumerate(ids)}
        return [_started(dict(row)) for row in sorted(rows, key=lambda row: place[row["id"]])]

    async def with_prompt(self, started: StartedJob) -> StartedJob:
        """A claimed job with its prompt, if that was too large to be read with the claim."""
        if not started.large_bytes:
            return started
        return replace(started, body=await self._db.value(PROMPT, {"job_id": started.id}))

    async def settle(self, worker_id: str, outcomes: Sequence[Settled]) -> set[str]:
        """Write outcomes where the claim is still this worker's, and all their attempts; returns the ids written.

        A second call with the same outcomes, after a commit whose reply was lost, changes nothing and returns nothing.
        """
        if not outcomes:
            return set()
        by_claim = {(each.job_id, each.claim_no): each for each in outcomes}
        tallies = Tallies(worker_id)
        async with self._db.write() as connection:
            written = await self._settle_jobs(connection, worker_id, outcomes)
            ended = [row for row in written if row.ended_at is not None]
            results = []
            for row in ended:
                record = by_claim[row.id, row.claim_no].result
                tallies.job_ended(row.batch_id, row.state, row.ended_at, record)
                if record is not None:
                    results.append(result_row(row, record))
            await INSERT_RESULTS.run(connection, results)
            await self._record_attempts(connection, outcomes, tallies)
            await announce_jobs(connection, ended)
            await tallies.write(connection)
        return {row.id for row in written}

    async def _settle_jobs(
        self, connection: AsyncConnection, worker_id: str, outcomes: Sequence[Settled]
    ) -> Sequence[Row[Any]]:
        statement, given = settle_jobs(self._db.dialect)
        rows = [
            {
                "id": each.job_id,
                "claim_no": each.claim_no,
                "state": str(each.state),
                "not_before": each.not_before,
                "progress": None if each.progress is None else orjson.dumps(each.progress).decode(),
                "waiting": None if each.waiting is None else as_json(_storable(each.waiting)),
                "calls": len(each.attempts),
                "answer_bytes": None if each.result is None else answer_bytes(each.result),
            }
            for each in outcomes
        ]
        return (await connection.execute(statement, {**given.bind(rows), "holder": worker_id})).all()

    async def _record_attempts(
        self, connection: AsyncConnection, outcomes: Sequence[Settled], tallies: Tallies
    ) -> None:
        calls = {call.id: (each, call) for each in outcomes for call in each.attempts}
        rows = [_attempt_row(each, call) for each, call in calls.values()]
        if not rows:
            return
        now = (await connection.execute(CLOCK)).scalar_one()
        for row in await INSERT_ATTEMPTS.run(connection, rows):
            each, call = calls[row.id]
            tallies.attempted(each.batch_id, each.tenant, call, now)


def _started(row: dict[str, Any]) -> StartedJob:
    progress = row.pop("progress")
    given: dict[str, Any] = {"priority": Priority(row["priority"]), "large_bytes": row["large_bytes"] or 0}
    if row["large_bytes"]:
        given["body"] = ""
    return StartedJob(**row | given, progress=None if progress is None else orjson.loads(progress))


def _storable(waiting: Waiting) -> Waiting:
    """A provider's words may be in its reason, a caller's in its model."""
    at = (clean(waiting.provider), clean(waiting.model), clean(waiting.account))
    return Waiting(clean(waiting.reason) or "", waiting.hold, *at)


def result_row(ended: Row[Any], record: ResultRecord) -> dict[str, Any]:
    return {
        **columns_of(record, result),
        "job_id": ended.id,
        "batch_id": ended.batch_id,
        "error": None if record.error is None else orjson.dumps(record.error).decode(),
        "failure": None if record.failure is None else str(record.failure),
        "step": clean(record.step),
        "input_tokens": whole(record.input_tokens),
        "output_tokens": whole(record.output_tokens),
        "latency_ms": whole(record.latency_ms),
        "created_at": ended.ended_at,
    }


def _attempt_row(of: Settled, call: AttemptRecord) -> dict[str, Any]:
    return {
        **columns_of(call, attempt),
        **{"job_id": of.job_id, "batch_id": of.batch_id, "tenant": of.tenant, "claim_no": of.claim_no},
        "failure": None if call.cls is None else str(call.cls),
        "message": clean(call.message),
        "input_tokens": whole(call.input_tokens),
        "output_tokens": whole(call.output_tokens),
        "latency_ms": whole(call.latency_ms),
    }
