"""Whatever happens to jobs, and in any order: the planner stages each due job within two passes."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from ledger_help import HOUR_S, new_jobs, new_worker, put_back, succeeded
from run_help import Stage, chain, planner_of, stage, without_slow_start
from sqlalchemy import delete, or_, select, update

from examples import examples
from understudy.models.ids import new_id
from understudy.models.jobs.execution import StartedJob
from understudy.models.jobs.submission import SINGLE, NewBatch
from understudy.models.queue.keys import QUEUES
from understudy.models.queue.tickets import queue_key, staged_ids
from understudy.models.state import BatchState, Priority
from understudy.models.store import Store, open_store
from understudy.models.store.sql import NOW, QUEUED, RUNNING, batch, job, worker
from understudy.models.tables import Job
from understudy.worker.planner.planner import CLAIMED_BY_NOW_S

FAST_TO_FAIL = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking an example that needs databases takes minutes
EXAMPLES = settings(examples(10), stateful_step_count=25, phases=FAST_TO_FAIL)
CHAINS = [chain("alpha/m"), chain("beta/m", "alpha/m")]
LATER_S = 1_000.0

DUE = (
    select(job.c.id)
    .outerjoin(batch, batch.c.id == job.c.batch_id)
    .where(
        QUEUED,
        job.c.not_before <= NOW,
        job.c.expires_at > NOW,
        or_(job.c.batch_id == SINGLE, (batch.c.state == str(BatchState.IN_PROGRESS)) & batch.c.paused.is_(None)),
    )
)


class World:
    """Two workers, a planner, and one ledger and Redis under them, emptied for each example."""

    def __init__(self, redis_url: str, ledger_url: str | None, folder: Path) -> None:
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.store: Store
        self.scene: Stage
        self.run(self._open(redis_url, ledger_url, folder))

    def run(self, act: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run(act)

    async def _open(self, redis_url: str, ledger_url: str | None, folder: Path) -> None:
        self.scene = await self._stack.enter_async_context(stage(redis_url))
        self.store = await self._stack.enter_async_context(open_store(ledger_url, folder, migrate=True))

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._loop.close()


@pytest.fixture
def world(redis_url: str, ledger_url: str | None, tmp_path: Path) -> Iterator[World]:
    made = World(redis_url, ledger_url, tmp_path)
    yield made
    made.close()


class Life(RuleBasedStateMachine):
    """What may happen to jobs. This model remembers the batches and who holds which job; the ledger knows the rest."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.store, self.redis = world, world.store, world.scene.redis
        self.running: list[tuple[str, StartedJob]] = []
        self.batches: list[str] = []
        self.ahead_s = 0.0
        self.world.run(self._begin())

    async def _begin(self) -> None:
        await self.redis.flushdb()
        async with self.store._db.write() as connection:
            for table in Job.metadata.sorted_tables:
                await connection.execute(delete(table))
        self.workers = [await new_worker(self.store), await new_worker(self.store)]
        self.planner = planner_of(self.world.scene, self.store, monotonic=lambda: time.monotonic() + self.ahead_s)

    def _do(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self.world.run(act())

    @rule(tenant=st.sampled_from("ab"), priority=st.sampled_from(Priority), of=st.sampled_from(CHAINS))
    def submit(self, tenant: str, priority: Priority, of: Any) -> None:
        async def act() -> None:
            await self.store.intake.accept_jobs(
                "default", await new_jobs(self.store, 1, of, tenant=tenant, priority=priority)
            )

        self._do(act)

    @rule(count=st.integers(1, 3))
    def submit_batch(self, count: int) -> None:
        async def act() -> None:
            new = NewBatch(new_id("batch"), expires_at=await self.store.now() + HOUR_S)
            await self.store.intake.create_batch(new)
            await self.store.intake.add_jobs(new.id, await new_jobs(self.store, count, CHAINS[0]))
            await self.store.intake.open_batch(new.id, count)
            self.batches.append(new.id)

        self._do(act)

    @rule(by=st.integers(0, 1), most=st.integers(1, 6))
    def start(self, by: int, most: int) -> None:
        """A worker takes tickets; a ticket that the ledger does not let start is gone."""

        async def act() -> None:
            for queue in QUEUES:
                taken = await self.redis.lpop(queue_key(queue), most) or []
                ids = [each.decode() if isinstance(each, bytes) else each for each in taken]
                started = await self.store.claims.start(self.workers[by], ids)
                self.running += [(self.workers[by], each) for each in started]

        self._do(act)

    @rule(many=st.integers(1, 3), when=st.sampled_from([-1.0, 0.0, LATER_S]))
    def settle_put_back(self, many: int, when: float) -> None:
        async def act() -> None:
            until = await self.store.now() + when if when else 0.0
            for _ in range(min(many, len(self.running))):
                holder, started = self.running.pop()
                await self.store.claims.settle(holder, [put_back(started, until)])

        self._do(act)

    @rule()
    def settle_succeeded(self) -> None:
        if self.running:
            holder, started = self.running.pop(0)
            self.world.run(self.store.claims.settle(holder, [succeeded(started)]))

    @rule(by=st.integers(0, 1))
    def give_back(self, by: int) -> None:
        ids = [started.id for holder, started in self.running if holder == self.workers[by]]
        self.world.run(self.store.workers.give_back(self.workers[by], ids[:2]))

    @rule(by=st.integers(0, 1), in_good_order=st.booleans())
    def end_worker(self, by: int, in_good_order: bool) -> None:
        async def act() -> None:
            gone, self.workers[by] = self.workers[by], await new_worker(self.store)
            if in_good_order:
                await self.store.workers.remove(gone)
            else:
                await self._change(update(worker).where(worker.c.id == gone).values(lease_until=0.0))

        self._do(act)

    @rule()
    def time_passes(self) -> None:
        """Jobs that wait for a time become due."""
        self.world.run(self._change(update(job).where(QUEUED, job.c.not_before > 1.0).values(not_before=1.0)))

    @rule(running=st.booleans())
    def deadline_passes(self, running: bool) -> None:
        of = RUNNING if running else QUEUED
        one = select(job.c.id).where(of).order_by(job.c.id).limit(1).scalar_subquery()
        self.world.run(self._change(update(job).where(job.c.id == one).values(expires_at=1.0)))

    @rule()
    def cancel_job(self) -> None:
        if self.running:
            self.world.run(self.store.jobs.cancel(self.running[0][1].id))

    @rule(pick=st.integers(0, 5), how=st.sampled_from(["pause", "resume", "cancel"]))
    def change_batch(self, pick: int, how: str) -> None:
        async def act() -> None:
            batch_id = self.batches[pick % len(self.batches)]
            if how == "pause":
                await self.store.batch_lifecycle.pause(batch_id, "by hand")
            else:
                await (
                    self.store.batch_lifecycle.resume(batch_id)
                    if how == "resume"
                    else self.store.batch_lifecycle.cancel(batch_id)
                )

        if self.batches:
            self._do(act)

    @rule(what=st.sampled_from(["tickets", "everything"]))
    def lose(self, what: str) -> None:
        self.world.run(self.redis.flushdb() if what == "everything" else self.redis.delete(*map(queue_key, QUEUES)))

    @rule()
    def upkeep(self) -> None:
        """Everything that the loops of the leader write."""

        async def act() -> None:
            await self.store.workers.rescue()
            await self.store.batch_lifecycle.cancel_slice()
            await self.store.batch_lifecycle.expire_slice()
            await self.store.batch_lifecycle.close_finished()

        self._do(act)

    @invariant()
    def what_is_due_is_staged(self) -> None:
        async def act() -> tuple[set[str], set[str]]:
            self.ahead_s += CLAIMED_BY_NOW_S + 0.1  # tickets that were taken a moment ago do not count as missing yet
            await without_slow_start(self.redis, "alpha", "beta")
            await self.planner.pass_once()
            await self.planner.pass_once()
            async with self.store._db.read() as connection:
                due = set((await connection.execute(DUE)).scalars())
            return due, {each for ids in (await staged_ids(self.redis)).values() for each in ids}

        due, staged = self._do(act)
        assert due <= staged

    async def _change(self, statement: Any) -> None:
        async with self.store._db.write() as connection:
            await connection.execute(statement)


def test_every_job_that_is_due_is_staged_within_two_passes(world: World) -> None:
    run_state_machine_as_test(lambda: Life(world), settings=EXAMPLES)
