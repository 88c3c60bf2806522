"""Compares the current lines of a run with those previously sent for its output.

The current lines are written as a new version, without jobs. Each then takes the answer of the earlier line with the
same name and request; a remaining line takes any job with the same request that has no line today, answered ones first,
so a line that was moved, restored or renamed is not paid for again. A job answers one line: a prompt that occurs twice
is sent twice.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BindParameter,
    Row,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.types import BigInteger

from understudy.models.failure import FailureClass
from understudy.models.state import OPEN_STATES, BatchState, JobState
from understudy.models.store.ledger import Area
from understudy.models.store.sql import SLICE, JsonRows, batch, job, result, run_line
from understudy.models.store.work.jobs import failure_of
from understudy.models.store.work.runs import LINES_AT_ONCE, forget_version, version_of, versions_of

NEW, REWORDED, CHANGED, AGAIN, LEFT = "new", "reworded", "changed", "again", "left"
"""Why a line is sent: its request is new; the line's request has changed, and the earlier one had no answer, or had
one; its request has no answer that may be kept; it was accepted before and not yet sent."""

_new, _old = run_line.alias("new_line"), run_line.alias("old_line")

_run: BindParameter[str] = bindparam("of_run")

_version: BindParameter[int] = bindparam("of_version")

_before: BindParameter[int] = bindparam("before")

_part: tuple[BindParameter[int], ...] = (bindparam("after_position"), bindparam("up_to_position"))

_mine = and_(run_line.c.run_id == _run, run_line.c.version == _version)

_of_slice = and_(_mine, run_line.c.position > _part[0], run_line.c.position <= _part[1])

_asks_the_same = and_(_old.c.run_id == _run, _old.c.version < _version, _old.c.request == run_line.c.request)

_is_answered = job.c.state == str(JobState.SUCCEEDED)

_words_are_kept = or_(~_is_answered, result.c.body.is_not(None))

_serves = exists(
    select(job.c.id)
    .join_from(job, result, result.c.job_id == job.c.id)
    .where(job.c.id == _old.c.job_id, _is_answered, _words_are_kept)
)
"""It has an answer that was neither pruned nor removed after delivery."""

TAKE_BY_NAME = (
    update(run_line)
    .where(_of_slice, run_line.c.named, run_line.c.job_id.is_(None))
    .values(
        job_id=select(_old.c.job_id)
        .where(_asks_the_same, _old.c.named, _old.c.name == run_line.c.name, _serves)
        .order_by(_old.c.version.desc())
        .limit(1)
        .correlate(run_line)
        .scalar_subquery()
    )
)
"""Named lines take the answer of the line with that name, if the request is the same."""

TAKE_BY_PLACE = (
    update(run_line)
    .where(_of_slice, ~run_line.c.named, run_line.c.job_id.is_(None))
    .values(
        job_id=select(_old.c.job_id)
        .where(
            _asks_the_same,
            ~_old.c.named,
            _old.c.version == _before,
            _old.c.position == run_line.c.position,
            _serves,
        )
        .correlate(run_line)
        .scalar_subquery()
    )
)
"""Lines without a name take the answer of the line at their position, if the request is the same."""

_other = run_line.alias("other_line")

_is_free = ~exists(
    select(_other.c.position).where(
        _other.c.job_id == _old.c.job_id, _other.c.run_id == _run, _other.c.version == _version
    )
)

_answered = case((_is_answered, 0), else_=1)


def _nth(of: Any, *order: Any) -> Any:
    return func.row_number().over(partition_by=of.c.request, order_by=order).label("nth")


_free_jobs = (
    select(_old.c.job_id, _old.c.request, _nth(_old, _answered, _old.c.version.desc(), _old.c.position))
    .join(job, job.c.id == _old.c.job_id)
    .outerjoin(result, result.c.job_id == job.c.id)
    .where(
        _old.c.run_id == _run,
        _old.c.version < _version,
        _words_are_kept,
        _old.c.request >= bindparam("low"),
        _old.c.request < bindparam("high"),
        _is_free,
    )
    .subquery("free")
)

_free_lines = (
    select(_new.c.position, _new.c.request, _nth(_new, _new.c.position))
    .where(
        _new.c.run_id == _run,
        _new.c.version == _version,
        _new.c.job_id.is_(None),
        _new.c.request >= bindparam("low"),
        _new.c.request < bindparam("high"),
    )
    .subquery("waiting")
)

_pairs = (
    select(_free_lines.c.position, _free_jobs.c.job_id)
    .join(_free_jobs, and_(_free_jobs.c.request == _free_lines.c.request, _free_jobs.c.nth == _free_lines.c.nth))
    .subquery("pairs")
)

TAKE_BY_REQUEST = update(run_line).where(_mine, run_line.c.position == _pairs.c.position).values(job_id=_pairs.c.job_id)
"""Lines still without a job take jobs with the same request that have no line: answered ones first, each once."""

COMPARED: Select[Any] = (
    select(
        _new.c.position,
        _new.c.line,
        _new.c.name,
        _new.c.named,
        _new.c.chain_id,
        _old.c.position.label("was"),
        job.c.state,
        job.c.batch_id,
        batch.c.state.label("batch_state"),
        job.c.chain_id.label("job_chain"),
        _old.c.again_id,
        result.c.failure,
    )
    .select_from(
        _new.outerjoin(job, job.c.id == _new.c.job_id)
        .outerjoin(batch, batch.c.id == job.c.batch_id)
        .outerjoin(result, result.c.job_id == job.c.id)
        .outerjoin(
            _old,
            and_(_old.c.job_id == _new.c.job_id, _old.c.run_id == _run, _old.c.version == _before),
        )
    )
    .where(_new.c.run_id == _run, _new.c.version == _version, _new.c.position > bindparam("after"))
    .order_by(_new.c.position)
    .limit(SLICE)
)
"""A page of the current lines with their earlier requests."""

_displaced: Select[Any] = (
    select(_old.c.name, _old.c.position, job.c.state, result.c.cost_usd, result.c.unpriced)
    .join(job, job.c.id == _old.c.job_id)
    .outerjoin(result, result.c.job_id == job.c.id)
    .where(_old.c.run_id == _run, _old.c.version == _before, _is_free)
)

DISPLACED_NAMES = _displaced.where(_old.c.named, _old.c.name.in_(bindparam("names", expanding=True)))

DISPLACED_PLACES = _displaced.where(~_old.c.named, _old.c.position.in_(bindparam("places", expanding=True)))
"""Earlier lines under some names or at some positions that have no line today."""

ASK_LEFT = (
    update(run_line)
    .where(
        _of_slice,
        run_line.c.ask.is_(None),
        exists(
            select(job.c.id).where(
                job.c.id == run_line.c.job_id, job.c.state.in_([str(state) for state in sorted(OPEN_STATES)])
            )
        ),
    )
    .values(ask=LEFT)
)
"""Lines that were accepted and not yet sent are accepted again, with the rest."""

TO_ASK = (
    select(_new.c.position, _new.c.request, _new.c.ask)
    .where(
        _new.c.run_id == _run,
        _new.c.version == _version,
        _new.c.position > bindparam("after"),
        _new.c.ask.is_not(None),
    )
    .order_by(_new.c.position)
    .limit(SLICE)
)
"""A page of the lines to be sent."""

_counts = run_line.alias("counted")

_stale = and_(
    run_line.c.run_id == _run,
    run_line.c.version == bindparam("old_version"),
    run_line.c.position > _part[0],
    run_line.c.position <= _part[1],
    or_(
        exists(
            select(_counts.c.position).where(
                _counts.c.job_id == run_line.c.job_id, _counts.c.run_id == _run, _counts.c.version == _version
            )
        ),
        ~exists(select(job.c.id).where(job.c.id == run_line.c.job_id, job.c.state == str(JobState.SUCCEEDED))),
    ),
)

FORGET_STALE = delete(run_line).where(_stale)
"""Lines of an older version whose job has a line today, or no answer that could be reused."""

OPEN_JOBS = (
    select(func.count())
    .select_from(job)
    .join(batch, batch.c.id == job.c.batch_id)
    .where(
        batch.c.id.in_(bindparam("ids", expanding=True)),
        batch.c.state == str(BatchState.IN_PROGRESS),
        or_(job.c.state == literal_column("'queued'"), job.c.state == literal_column("'running'")),
    )
)
"""The number of unfinished jobs of some batches."""


def note_lines(dialect: str) -> tuple[Update, JsonRows]:
    """Record findings about some lines."""
    given = JsonRows(dialect, {"position": BigInteger(), "ask": Text(), "again_id": Text()})
    found = given.source.c
    values = {"ask": found.ask, "again_id": found.again_id}
    return update(run_line).where(_mine, run_line.c.position == found.position).values(values), given


def give_jobs(dialect: str) -> tuple[Update, JsonRows]:
    """Assign to some lines the jobs created for them."""
    given = JsonRows(dialect, {"position": BigInteger(), "job_id": Text()})
    found = given.source.c
    values = {"job_id": found.job_id, "again_id": None, "ask": None, "extra": None}
    return update(run_line).where(_mine, run_line.c.position == found.position).values(values), given


@dataclass(frozen=True, slots=True)
class ComparedLine:
    """A line of a run's input with the earlier request for it; without a `state` there was none."""

    position: int
    line: int
    name: str
    named: bool
    chain_id: str
    was: int | None  # its position in the previous version
    state: JobState | None
    batch_id: str | None
    batch_state: BatchState | None
    job_chain: str | None
    again_id: str | None
    failure: FailureClass | None  # of a failed one


@dataclass(frozen=True, slots=True)
class Displaced:
    """The line that a changed line replaced."""

    answered: bool
    cost_usd: float | None  # None: unknown


class Comparison(Area):
    async def match_lines(self, run_id: str, version: int, lines: int) -> None:
        """Assign to each of the `lines` of a new version an existing unassigned job with the same request, if any."""
        of = {"of_run": run_id, "of_version": version, "before": await version_of(self._db, run_id)}
        for statement in (TAKE_BY_NAME, TAKE_BY_PLACE):
            await self._in_slices(statement, of, lines)
        for low, high in _ranges(lines):
            await self._db.change(TAKE_BY_REQUEST, {**of, "low": low, "high": high})

    async def compared(self, run_id: str, version: int) -> AsyncIterator[list[ComparedLine]]:
        """Pages of the new version's lines, in order, with their earlier requests."""
        of = {"of_run": run_id, "of_version": version, "before": await version_of(self._db, run_id)}
        after = 0
        while True:
            rows = await self._db.rows(COMPARED, {**of, "after": after})
            if not rows:
                return
            yield [_compared(row) for row in rows]
            after = rows[-1].position

    async def displaced(
        self, run_id: str, version: int, names: Sequence[str], places: Sequence[int]
    ) -> tuple[dict[str, Displaced], dict[int, Displaced]]:
        """The previous version's lines under these names and at these positions that have no line today."""
        of = {"of_run": run_id, "of_version": version, "before": await version_of(self._db, run_id)}
        async with self._db.read() as connection:
            named = await connection.execute(DISPLACED_NAMES, {**of, "names": list(names)})
            by_name = {row.name: _displaced_by(row) for row in named}
            placed = await connection.execute(DISPLACED_PLACES, {**of, "places": list(places)})
            return by_name, {row.position: _displaced_by(row) for row in placed}

    async def note_lines(self, run_id: str, version: int, found: Sequence[Mapping[str, Any]]) -> None:
        """Record for lines, by `position`, why they are to be sent (`ask`), and the retry (`again_id`) that
        continues them."""
        await self._update_lines(note_lines(self._db.dialect), run_id, version, found)

    async def ask_left(self, run_id: str, version: int, lines: int) -> None:
        """Also send lines that were accepted before and wait to be sent."""
        await self._in_slices(ASK_LEFT, {"of_run": run_id, "of_version": version}, lines)

    async def to_ask(self, run_id: str, version: int) -> AsyncIterator[tuple[int, str, str]]:
        """Position, request and reason of each line to be sent, in order."""
        after = 0
        while True:
            async with self._db.read() as connection:
                of = {"of_run": run_id, "of_version": version, "after": after}
                rows = (await connection.execute(TO_ASK, of)).all()
            for row in rows:
                yield row.position, row.request, row.ask
            if not rows:
                return
            after = rows[-1].position

    async def give_jobs(self, run_id: str, version: int, jobs: Mapping[int, str]) -> None:
        """These jobs, by position, were created for lines."""
        found = [{"position": position, "job_id": job_id} for position, job_id in jobs.items()]
        await self._update_lines(give_jobs(self._db.dialect), run_id, version, found)

    async def open_jobs(self, batches: Sequence[str]) -> int:
        """The number of unfinished jobs in those of the batches that are accepted and active."""
        return int(await self._db.value(OPEN_JOBS, {"ids": list(batches)}))

    async def forget_stale_lines(self, run_id: str) -> None:
        """Delete lines of superseded versions, except those whose answers could be reused."""
        current = await version_of(self._db, run_id)
        for version, most in (await versions_of(self._db, run_id)).items():
            if version > current:  # never completed: its writer was killed
                await forget_version(self._db, run_id, version, most)
            elif version < current:
                of = {"of_run": run_id, "of_version": current, "old_version": version}
                await self._in_slices(FORGET_STALE, of, most)

    async def _in_slices(self, statement: Any, of: Mapping[str, Any], lines: int) -> None:
        for after in range(0, lines, LINES_AT_ONCE):
            part = {"after_position": after, "up_to_position": after + LINES_AT_ONCE}
            await self._db.change(statement, {**of, **part})

    async def _update_lines(
        self, made: tuple[Update, JsonRows], run_id: str, version: int, found: Sequence[Mapping[str, Any]]
    ) -> None:
        statement, given = made
        if found:
            await self._db.change(statement, {"of_run": run_id, "of_version": version, **given.bind(found)})


def _ranges(lines: int) -> list[tuple[str, str]]:
    """Bounds of hash ranges (hexadecimal), each with a limited number of lines."""
    if lines <= LINES_AT_ONCE:
        return [("", "g")]
    bounds = ["", *"123456789abcdef", "g"]
    return list(pairwise(bounds))


def _compared(row: Row[Any]) -> ComparedLine:
    state = None if row.state is None else JobState(row.state)
    batch_state = None if row.batch_state is None else BatchState(row.batch_state)
    return ComparedLine(**{**row._mapping, "state": state, "batch_state": batch_state, "failure": failure_of(row)})


def _displaced_by(row: Row[Any]) -> Displaced:
    return Displaced(row.state == JobState.SUCCEEDED, None if row.unpriced else row.cost_usd or 0.0)
