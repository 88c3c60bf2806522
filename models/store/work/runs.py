"""Runs of `understudy run`: whether a run's process lives, and its lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ScalarSelect,
    Text,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

from understudy.models.state import OPEN_STATES, JobState
from understudy.models.store.database.engine import Database
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    NOW,
    SLICE,
    BulkInsert,
    JsonRows,
    batch,
    job,
    replacing,
    result,
    run,
    run_line,
    upsert,
)

LINES_AT_ONCE = 20_000
"""Lines examined per statement."""

_of_a_run = update(batch).where(batch.c.runs_until.is_not(None), batch.c.ended_at.is_(None))

KEEP_RUN = (
    update(batch)
    .where(batch.c.id.in_(bindparam("ids", expanding=True)), batch.c.ended_at.is_(None))
    .values(runs_until=NOW + bindparam("lease_s"))
)
"""Renew a run's lease: the jobs of its batches may start for a while."""

STOP_RUN = _of_a_run.where(batch.c.id.in_(bindparam("ids", expanding=True))).values(runs_until=0.0)
"""Stop a run, unless its batches were resumed without it."""

STOP_RUNS = _of_a_run.values(runs_until=0.0)
"""Stop all runs."""

BATCHES_BY_IDENTITY_PREFIX = (
    select(batch.c.id)
    .where(batch.c.identity.startswith(bindparam("prefix"), autoescape=False))
    .order_by(batch.c.created_at, batch.c.id)
)
"""The batches with this identity prefix, oldest first: those of one run."""

TAKEN = update(run).where(run.c.id == bindparam("of_run")).values(taken_until=NOW + bindparam("lease_s"))
"""Renew or release a process's ownership of a run."""

LET_GO_OF_RUNS = update(run).values(taken_until=0.0)
"""Release every ownership of a run."""

TAKEN_FOR = select(run.c.taken_until - NOW).where(run.c.id == bindparam("of_run"))
"""For how long the process that owns a run may be considered alive."""

IDENTITY_OF = select(batch.c.identity).where(batch.c.id == bindparam("batch_id"))
"""The run that a batch belongs to."""

VERSION = select(run.c.version).where(run.c.id == bindparam("run_id"))
"""The version of a run's lines."""

_taken = {"taken_until": NOW + bindparam("lease_s")}
TAKE_RUN = (
    upsert(run)
    .values(id=bindparam("of_run"), version=0, **_taken)
    .on_conflict_do_update(index_elements=[run.c.id], set_=_taken, where=run.c.taken_until <= NOW)
    .returning(run.c.id)
)
"""Take ownership of a run that no live process owns."""

PUT_VERSION = replacing(upsert(run), ["version"])
"""Make this version the lines of a run."""

INSERT_LINES = BulkInsert(run_line)
"""Lines of a run."""

current_line = and_(
    run_line.c.run_id == bindparam("of_run"),
    run_line.c.version == select(run.c.version).where(run.c.id == bindparam("of_run")).scalar_subquery(),
)

_first, _again = job.alias("first_job"), job.alias("again_job")

_open = [str(state) for state in sorted(OPEN_STATES)]

again_counts = case(
    (_again.c.id.is_(None), False),
    (_again.c.state == str(JobState.SUCCEEDED), True),
    else_=func.coalesce(_first.c.state, "") != str(JobState.SUCCEEDED),
)
"""Which of a line's two jobs is shown: the newest answer, or else the newest record."""

lines_with_jobs = run_line.outerjoin(_first, _first.c.id == run_line.c.job_id).outerjoin(
    _again, _again.c.id == run_line.c.again_id
)

shown_job = case((again_counts, run_line.c.again_id), else_=run_line.c.job_id)

_shown_state = case((again_counts, _again.c.state), else_=_first.c.state)

STANDING = (
    select(
        case((_again.c.state.in_(_open), _again.c.state), else_=_shown_state).label("stands"),
        func.count().label("lines"),
        func.sum(case((result.c.fallback_index > 0, 1), else_=0)).label("fallbacks"),
    )
    .select_from(lines_with_jobs.outerjoin(result, result.c.job_id == shown_job))
    .where(current_line)
    .group_by("stands")
)
"""The number of lines of a run by state; a line being rerun counts as open."""


def _state_of(job_id: Column[str]) -> ScalarSelect[Any]:
    return select(job.c.state).where(job.c.id == job_id).correlate(run_line).scalar_subquery()


_is_answered = func.coalesce(_state_of(run_line.c.job_id), "") == str(JobState.SUCCEEDED)

_again_state = _state_of(run_line.c.again_id)

_takes_over = and_(_again_state.is_not(None), or_(_again_state == str(JobState.SUCCEEDED), ~_is_answered))

SETTLE_RETRIES = (
    update(run_line)
    .where(run_line.c.run_id == bindparam("of_run"), run_line.c.again_id.is_not(None))
    .values(
        job_id=case((_takes_over, run_line.c.again_id), else_=run_line.c.job_id),
        again_id=case((and_(_again_state.in_(_open), _is_answered), run_line.c.again_id), else_=None),
    )
)
"""The answer of a retry becomes the answer of its line; a retry that ended without one is dropped."""

_whole_run = run_line.c.run_id == bindparam("run_id")

FORGET_LINES = delete(run_line).where(
    _whole_run,
    run_line.c.version == bindparam("version"),
    run_line.c.position > bindparam("after"),
    run_line.c.position <= bindparam("up_to"),
)
"""Some lines of a version of a run."""

VERSIONS = select(run_line.c.version, func.max(run_line.c.position).label("most")).where(_whole_run).group_by("version")
"""The stored versions of a run's lines, and the last position of each."""

FORGET_RUN = update(run).where(run.c.id == bindparam("of_run")).values(version=0)
"""Nothing was ever sent for this output."""


def point_again(dialect: str) -> tuple[Update, JsonRows]:
    """Some jobs of a run are rerun as other jobs."""
    given = JsonRows(dialect, {"old_id": Text(), "new_id": Text()})
    new = given.source.c
    return update(run_line).where(current_line, run_line.c.job_id == new.old_id).values(again_id=new.new_id), given


@dataclass(frozen=True, slots=True)
class RunLine:
    """A line of a run's current input. `job_id` None: it is to be compared with earlier requests."""

    position: int  # among the lines, from 1
    line: int
    name: str
    named: bool
    request: str  # hash of what is sent to the model
    chain_id: str
    extra: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The number of a run's lines, and their states. The rest is open."""

    total: int
    succeeded: int
    failed: int  # ended without an answer
    fallbacks: int  # answered by a step other than the first


class Runs(Area):
    async def keep(self, batches: Sequence[str], lease_s: float) -> None:
        """Let the jobs of a run's batches start for the next `lease_s` seconds; its process renews this
        periodically."""
        await self._db.change(KEEP_RUN, {"ids": list(batches), "lease_s": lease_s})

    async def stop(self, batches: Sequence[str]) -> None:
        """No further job of a run's batches starts until the run is continued or its batches are resumed."""
        await self._db.change(STOP_RUN, {"ids": list(batches)})

    async def stop_all(self) -> None:
        """Stop every run, for a process that knows that none can be alive (it holds the data folder's lock)."""
        async with self._db.write() as connection:
            await connection.execute(STOP_RUNS)
            await connection.execute(LET_GO_OF_RUNS)

    async def take(self, run_id: str, lease_s: float) -> bool:
        """Take ownership of a run for the next `lease_s` seconds. False: another process owns it."""
        return await self._db.change(TAKE_RUN, {"of_run": run_id, "lease_s": lease_s}) > 0

    async def keep_taken(self, run_id: str, lease_s: float) -> None:
        """Renew ownership of a run for `lease_s` more seconds; 0: release it."""
        await self._db.change(TAKEN, {"of_run": run_id, "lease_s": lease_s})

    async def taken_for_s(self, run_id: str) -> float:
        """Seconds from now during which a process may still own a run; 0.0 or less: none does."""
        return float(await self._db.value(TAKEN_FOR, {"of_run": run_id}) or 0.0)

    async def batches_of(self, run_id: str) -> list[str]:
        """Every batch of a run, oldest first; `run_id` consists of letters and digits."""
        return await self._db.values(BATCHES_BY_IDENTITY_PREFIX, {"prefix": f"{run_id}-"})

    async def run_of(self, batch_id: str) -> str | None:
        """The run of a batch. None: it belongs to none with stored lines."""
        identity = await self._db.value(IDENTITY_OF, {"batch_id": batch_id})
        run_id = (identity or "").partition("-")[0]
        return run_id if run_id and await self.version(run_id) else None

    async def version(self, run_id: str) -> int:
        """The version of the run's lines; 0: no such run."""
        return await version_of(self._db, run_id)

    async def put_version(self, run_id: str, version: int) -> None:
        """Make the lines written as this version the run's lines."""
        await self._db.change(PUT_VERSION, {"id": run_id, "version": version})

    async def add_lines(self, run_id: str, version: int, lines: Sequence[RunLine]) -> None:
        """Write up to 2,000 lines of a version that is not yet current."""
        common = {"run_id": run_id, "version": version, "again_id": None, "ask": None}
        rows = [{**{name: getattr(line, name) for name in RunLine.__slots__}, **common} for line in lines]
        async with self._db.write() as connection:
            await INSERT_LINES.run(connection, rows)

    async def standing(self, run_id: str) -> Standing:
        """The state of a run's lines."""
        rows = await self._db.rows(STANDING, {"of_run": run_id})
        lines = {row.stands: int(row.lines) for row in rows}
        ended = sum(count for state, count in lines.items() if state not in _open)
        succeeded = lines.get(JobState.SUCCEEDED, 0)
        fallbacks = sum(int(row.fallbacks) for row in rows if row.stands == JobState.SUCCEEDED)
        return Standing(sum(lines.values()), succeeded, ended - succeeded, fallbacks)

    async def settle_retries(self, run_id: str) -> None:
        """Make the answers of a run's retries the answers of their lines."""
        await self._db.change(SETTLE_RETRIES, {"of_run": run_id})

    async def point_again(self, run_id: str, jobs: Mapping[str, str]) -> None:
        """Jobs behind lines of the run are rerun as others: new ids by old ids."""
        statement, given = point_again(self._db.dialect)
        rows = [{"old_id": old, "new_id": new} for old, new in jobs.items()]
        await self._db.change(statement, {"of_run": run_id, **given.bind(rows)})

    async def forget(self, run_id: str) -> None:
        """Delete the lines of a run, in slices; the caller deletes its batches."""
        await self._db.change(FORGET_RUN, {"of_run": run_id})
        for version, most in (await versions_of(self._db, run_id)).items():
            await forget_version(self._db, run_id, version, most)


async def version_of(database: Database, run_id: str) -> int:
    """The version of a run's lines; 0: no such run."""
    return int(await database.value(VERSION, {"run_id": run_id}) or 0)


async def versions_of(database: Database, run_id: str) -> dict[int, int]:
    """The stored versions of a run's lines, and the last position of each."""
    return {row.version: row.most for row in await database.rows(VERSIONS, {"run_id": run_id})}


async def forget_version(database: Database, run_id: str, version: int, most: int) -> None:
    """Delete one version's lines, up to position `most`, in slices."""
    for after in range(0, most, SLICE):
        part = {"run_id": run_id, "version": version, "after": after, "up_to": after + SLICE}
        await database.change(FORGET_LINES, part)
