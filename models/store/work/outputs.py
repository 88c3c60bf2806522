"""Results of ended jobs: of a batch, of some jobs, of the lines of a run, and of a batch's output or error file."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    Row,
    Select,
    bindparam,
    func,
    select,
)

from understudy.models.jobs.views import ERRORS, OUTPUT, OutputRow
from understudy.models.jobs.wait_reasons import from_json
from understudy.models.state import TERMINAL_STATES, JobState
from understudy.models.store.erasure import FORGET
from understudy.models.store.ledger import Area
from understudy.models.store.paging import ANSWER_BYTES, Paged, Span, size_of
from understudy.models.store.sql import (
    SLICE,
    batch,
    job,
    job_input,
    result,
    run_line,
)
from understudy.models.store.work.runs import current_line, lines_with_jobs, shown_job

_ended = [str(state) for state in sorted(TERMINAL_STATES)]

WAITED_FOR = (batch.c.paused, batch.c.blocked, job.c.waiting.label("put_back_for"))
"""What kept a job from starting; the first that is not null."""

NOT_SHOWN = frozenset({"position", "unpriced", *(each.name for each in WAITED_FOR)})

OUTCOME = (
    job.c.id.label("job_id"),
    job.c.state,
    result.c.status_code,
    result.c.body,
    result.c.error,
    result.c.provider,
    result.c.model,
    result.c.cost_usd,
    result.c.unpriced,
    *WAITED_FOR,
)
"""What is shown of an ended job in addition to its name, its line and its columns."""

_outputs: Select[Any] = (
    select(*OUTCOME, job.c.custom_id, job.c.line, job_input.c.extra)
    .select_from(job)
    .outerjoin(result, result.c.job_id == job.c.id)
    .outerjoin(batch, batch.c.id == job.c.batch_id)
    .outerjoin(job_input, job_input.c.job_id == job.c.id)
    .where(job.c.state.in_(_ended))
)

OUTPUTS_PAGE = Paged(
    _outputs.where(job.c.batch_id == bindparam("batch_id")),
    job.c.id,
    ANSWER_BYTES + size_of(job.c.custom_id, job_input.c.extra),
)
"""A page of a batch's ended jobs with their results, by id."""

OUTPUT_SIZES = (
    select(job.c.id, (ANSWER_BYTES + size_of(job.c.custom_id)).label("size"))
    .select_from(job)
    .where(job.c.batch_id == bindparam("batch_id"), job.c.id > bindparam("after"), job.c.state.in_(_ended))
    .order_by(job.c.id)
    .limit(bindparam("most"))
)
"""A batch's ended jobs and the size of their results."""

OUTPUTS_OF_JOBS = _outputs.where(job.c.id.in_(bindparam("ids", expanding=True)))
"""Those of the given jobs that have ended, with their results."""

ENDED_NAMES_PAGE = Paged(
    select(job.c.id.label("job_id"), job.c.custom_id, job.c.state).where(
        job.c.batch_id == bindparam("batch_id"), job.c.state.in_(_ended)
    ),
    job.c.id,
    size_of(job.c.custom_id),
)
"""A page of a batch's ended jobs: their names and final states."""

_of_part = (job.c.batch_id == bindparam("batch_id"), job.c.state.in_(bindparam("states", expanding=True)))

_part = (
    select(job.c.id.label("job_id"), job.c.custom_id, job.c.line, job.c.state, result.c.status_code, *WAITED_FOR)
    .select_from(job)
    .outerjoin(result, result.c.job_id == job.c.id)
    .outerjoin(batch, batch.c.id == job.c.batch_id)
    .where(*_of_part)
)

PART_PAGE = Paged(_part.add_columns(result.c.body, result.c.error), job.c.id, ANSWER_BYTES + size_of(job.c.custom_id))
"""A page of a batch's jobs that ended in certain states, with their results."""

PART_SIZES = Paged(_part.add_columns(ANSWER_BYTES.label("answer_bytes")), job.c.id, size_of(job.c.custom_id))
"""The same, with the size of their results instead."""

PART_IDS = select(job.c.id).where(*_of_part, job.c.id > bindparam("after")).order_by(job.c.id).limit(SLICE)
"""A slice of a batch's jobs that ended in certain states."""

STATES = {
    OUTPUT: [str(JobState.SUCCEEDED)],
    ERRORS: sorted(str(state) for state in TERMINAL_STATES - {JobState.SUCCEEDED}),
}
"""The job states in each part of a batch's results."""

RUN_OUTPUTS_PAGE = Paged(
    select(
        *OUTCOME,
        run_line.c.position,
        run_line.c.name.label("custom_id"),
        run_line.c.line,
        func.coalesce(run_line.c.extra, job_input.c.extra).label("extra"),
    )
    .select_from(
        lines_with_jobs.join(job, job.c.id == shown_job)
        .outerjoin(result, result.c.job_id == job.c.id)
        .outerjoin(batch, batch.c.id == job.c.batch_id)
        .outerjoin(job_input, job_input.c.job_id == job.c.id)
    )
    .where(current_line, job.c.state.in_(_ended)),
    run_line.c.position,
    ANSWER_BYTES + size_of(run_line.c.name, run_line.c.extra, job_input.c.extra),
)
"""A page of a run's lines that have ended, in order, with their results."""


class Outputs(Area):
    async def of_batch(self, batch_id: str) -> AsyncIterator[OutputRow]:
        """A batch's ended jobs with their results, even while others still run."""
        async for row in OUTPUTS_PAGE.each(self._db, {"batch_id": batch_id}):
            yield output_row(row)

    async def of_jobs(self, ids: Sequence[str]) -> dict[str, OutputRow]:
        """Those of up to 1,000 jobs that have ended, by id, with their results."""
        rows = await self._db.rows(OUTPUTS_OF_JOBS, {"ids": list(ids)}) if ids else []
        return {row.job_id: output_row(row) for row in rows}

    async def ended_names(self, batch_id: str) -> AsyncIterator[tuple[str, str, JobState]]:
        """Name, id and state of a batch's ended jobs."""
        async for row in ENDED_NAMES_PAGE.each(self._db, {"batch_id": batch_id}):
            yield row.custom_id, row.job_id, JobState(row.state)

    async def sizes(self, batch_id: str, after: str, limit: int) -> list[tuple[str, int]]:
        """The ids of a batch's ended jobs after the given one, and the size of their results in bytes."""
        asked = {"batch_id": batch_id, "after": after, "most": limit}
        return [(row.id, row.size) for row in await self._db.rows(OUTPUT_SIZES, asked)]

    async def of_batch_in(self, batch_id: str, of: Span) -> list[OutputRow]:
        """A batch's ended jobs within a span, with their results."""
        async with self._db.read() as connection:
            return [output_row(row) for row in await OUTPUTS_PAGE.rows(connection, {"batch_id": batch_id}, of)]

    async def of_run(self, run_id: str) -> AsyncIterator[OutputRow]:
        """A run's lines that have ended, in order, with their results, even while others are open."""
        async for row in RUN_OUTPUTS_PAGE.each(self._db, {"of_run": run_id}, 0):
            yield output_row(row)

    def part_spans(self, batch_id: str, part: str) -> AsyncIterator[Span]:
        """Page by page, the rows of a batch's output or error file, to be read when there is memory for them."""
        return PART_PAGE.spans(self._db, {"batch_id": batch_id, "states": STATES[part]}, "")

    async def part_rows(self, batch_id: str, part: str, of: Span) -> list[OutputRow]:
        """One of these pages."""
        asked = {"batch_id": batch_id, "states": STATES[part]}
        async with self._db.read() as connection:
            return [_output_row(row) for row in await PART_PAGE.rows(connection, asked, of)]

    async def part_sizes(self, batch_id: str, part: str) -> AsyncIterator[tuple[OutputRow, int]]:
        """The same rows without body and error, each with the size in bytes of what is omitted."""
        asked = {"batch_id": batch_id, "states": STATES[part]}
        async for rows in PART_SIZES.pages(self._db, asked, ""):
            for row in rows:
                yield _output_row(row), row.answer_bytes

    async def forget_part(self, batch_id: str, part: str) -> None:
        """Remove the prompts and answers of a batch's output or error file, in slices; counts and costs are kept."""
        after = ""
        while True:
            async with self._db.write() as connection:
                asked = {"batch_id": batch_id, "after": after, "states": STATES[part]}
                ids = (await connection.execute(PART_IDS, asked)).scalars().all()
                for statement in FORGET if ids else ():
                    await connection.execute(statement, {"ids": ids})
            if not ids:
                return
            after = ids[-1]


def output_row(row: Row[Any]) -> OutputRow:
    """From a row of `OUTPUTS_PAGE`, or of a statement with its columns."""
    columns = {name: value for name, value in row._mapping.items() if name not in NOT_SHOWN}
    error = columns.pop("error")
    return OutputRow(
        **columns
        | {
            "state": JobState(row.state),
            "error": None if error is None else orjson.loads(error),
            "cost_usd": None if row.unpriced else row.cost_usd or 0.0,
            "waited_for": waited_for(row),
        }
    )


def waited_for(row: Row[Any]) -> str | None:
    """From a row with `WAITED_FOR`: why an expired job was not completed in time, as far as known."""
    if row.state != str(JobState.EXPIRED):
        return None
    if row.paused or row.blocked:
        return f"its batch was paused: {row.paused}" if row.paused else row.blocked
    put_back = from_json(row.put_back_for)
    return None if put_back is None else put_back.sentence


def _output_row(row: Row[Any]) -> OutputRow:
    return OutputRow(
        job_id=row.job_id,
        custom_id=row.custom_id,
        line=row.line,
        state=JobState(row.state),
        status_code=row.status_code,
        body=getattr(row, "body", None),
        error=orjson.loads(said) if (said := getattr(row, "error", None)) else None,
        provider=None,
        model=None,
        cost_usd=0.0,
        extra=None,
        waited_for=waited_for(row),
    )
