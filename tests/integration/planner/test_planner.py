"""What the planner puts into a real Redis for a real ledger: jobs that can start soon, and lost tickets again."""

import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledger_help import HOUR_S, new_jobs, new_worker, open_batch, put_back, singles, sqlite_ledger
from run_help import Stage, chain, planner_of, stage, without_slow_start

from understudy.models.config.secrets import fingerprint
from understudy.models.disabled import ALL_MODELS
from understudy.models.failure import FailureClass, Scope
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.limits.state import end_of_day
from understudy.models.queue.keys import QUEUES
from understudy.models.queue.tickets import queue_key, stage_at_once, staged_ids
from understudy.models.routing.chain import Chain
from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.limits.grants import Deployment, Grant
from understudy.worker.planner.planner import CLAIMED_BY_NOW_S, STAGED_BOUNDS, Planner

ALPHA, BETA = chain("alpha/m"), chain("beta/m")
HASTY = chain("alpha/m", "beta/m", patience_s=0)
A_DAY_S = 86_400.0


class Ahead:
    """Monotonic time that a test can move."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.by_s


@dataclass
class Desk:
    """A planner with its stores."""

    scene: Stage
    store: Store
    planner: Planner
    worker: str
    ahead: Ahead

    async def batch(self, of: Chain, count: int, most: int = 0, **fields: Any) -> list[str]:
        batch_id = new_id("batch")
        expires_at = time.time() + HOUR_S
        await self.store.intake.create_batch(NewBatch(batch_id, **{"expires_at": expires_at, **fields}))
        priority = fields.get("priority", Priority.BULK)
        jobs = await new_jobs(self.store, count, of, priority=priority, max_output_tokens=most)
        await self.store.intake.add_jobs(batch_id, jobs)
        await self.store.intake.open_batch(batch_id, count)
        return [batch_id, *(each.id for each in jobs)]

    async def staged(self, priority: Priority = Priority.BULK) -> list[str]:
        return (await staged_ids(self.scene.redis))[priority.queue]

    async def cool(self, provider: str, for_s: float) -> None:
        deployment = Deployment(provider, "m", "main", f"{provider}:main")
        await self.scene.tools.limiter.cool(deployment, Scope.MODEL, for_s, "rate_limit")

    async def use_tokens(self, tokens: int) -> None:
        """Of alpha's limit. Its clock stops here, so nothing flows back, however long the test takes."""
        tools = self.scene.tools
        tools.limiter.scripts.now_ms = time.time() * 1_000
        assert isinstance(await tools.limiter.reserve(tools.fleet.usable(ALPHA.steps[0]), tokens), Grant)

    async def take_all(self) -> None:
        """As workers do: the tickets leave the queues."""
        await self.scene.redis.delete(*map(queue_key, QUEUES))


@asynccontextmanager
async def desk(redis_url: str, folder: Path, **alpha: Any) -> AsyncIterator[Desk]:
    async with stage(redis_url, **alpha) as scene, sqlite_ledger(folder) as store:
        ahead = Ahead()
        planner = planner_of(scene, store, monotonic=ahead)
        await planner.pass_once()
        await without_slow_start(scene.redis, "alpha", "beta")
        yield Desk(scene, store, planner, await new_worker(store), ahead)


def seen(here: Desk) -> str:
    """The fingerprint of alpha's secret."""
    return fingerprint(here.scene.environ["ALPHA_MAIN"])


def belonging(ids: Sequence[str], batch: Sequence[str]) -> int:
    return len(set(ids) & set(batch))


async def test_each_job_gets_one_ticket_in_the_queue_of_its_priority(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *bulk = await here.batch(ALPHA, 3)
        _, *normal = await here.batch(ALPHA, 2, priority=Priority.NORMAL)
        assert await here.planner.pass_once() == 5
        assert await here.planner.pass_once() == 0
        assert sorted(await here.staged()) == sorted(bulk)
        assert sorted(await here.staged(Priority.NORMAL)) == sorted(normal)


async def test_redis_stays_small_whatever_the_backlog(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        await here.batch(ALPHA, 10_000)
        for _ in range(5):
            await here.planner.pass_once()
        assert len(await here.staged()) == STAGED_BOUNDS[0]


async def test_batches_take_turns(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *large = await here.batch(ALPHA, 1000)
        _, *small = await here.batch(ALPHA, 50)
        await here.planner.pass_once()
        staged = await here.staged()
        assert belonging(staged, small) == 50
        assert belonging(staged[:20], small) == 10
        assert belonging(staged, large) == STAGED_BOUNDS[0] - 50


async def test_no_more_than_a_limit_lets_start_soon(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path, requests_per_minute=600) as here:
        _, *slow = await here.batch(ALPHA, 500)
        _, *free = await here.batch(BETA, 60)
        for _ in range(3):
            await here.planner.pass_once()
        staged = await here.staged()
        assert belonging(staged, free) == 60
        assert 10 <= belonging(staged, slow) <= 20


async def test_small_jobs_are_staged_where_one_of_the_usual_size_could_not_start(
    redis_url: str, tmp_path: Path
) -> None:
    async with desk(redis_url, tmp_path, tokens_per_minute=60_000) as here:
        await here.use_tokens(1_400)
        _, *small = await here.batch(ALPHA, 30, most=3)
        await here.planner.pass_once()
        assert 5 <= belonging(await here.staged(), small) <= 18


async def test_large_jobs_wait_in_the_ledger_where_smaller_ones_could_start(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path, tokens_per_minute=60_000) as here:
        await here.use_tokens(1_400)
        await here.batch(ALPHA, 30)
        assert await here.planner.pass_once() == 0


async def test_no_more_is_staged_than_the_day_has_left_and_then_nothing_until_midnight(
    redis_url: str, tmp_path: Path
) -> None:
    async with desk(redis_url, tmp_path, requests_per_day=12) as here:
        batch_id, *ids = await here.batch(ALPHA, 100)
        _, *others = await here.batch(HASTY, 5)
        limiter, usable = here.scene.tools.limiter, here.scene.tools.fleet.usable(ALPHA.steps[0])
        limiter.scripts.now_ms = time.time() * 1000
        for _ in range(4):
            assert isinstance(await limiter.reserve(usable, 10), Grant)
        await here.planner.pass_once()
        staged = await here.staged()
        assert len(staged) == 8 and belonging(staged, ids)
        await here.take_all()
        here.ahead.by_s = CLAIMED_BY_NOW_S + 0.1
        for _ in range(8):
            await limiter.reserve(usable, 10)
        said = await waits_of(here, batch_id)
        assert sorted(await here.staged()) == sorted(others), "they have another step"
        assert said is not None
        assert (said.hold, said.account, said.until) == ("day", "alpha:main", end_of_day(limiter.scripts.now_ms / 1000))


async def test_a_chain_whose_provider_cools_waits_in_the_ledger_while_another_flows(
    redis_url: str, tmp_path: Path
) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *stuck = await here.batch(ALPHA, 300)
        _, *free = await here.batch(BETA, 30)
        await here.cool("alpha", 60)
        await here.planner.pass_once()
        assert sorted(await here.staged()) == sorted(free)
        assert not belonging(await here.staged(), stuck)


async def test_after_a_wipe_every_ticket_is_back_within_two_passes(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *ids = await here.batch(ALPHA, 40)
        await here.planner.pass_once()
        await here.scene.redis.flushdb()
        await without_slow_start(here.scene.redis, "alpha")
        await here.planner.pass_once()
        await here.planner.pass_once()
        assert sorted(await here.staged()) == sorted(ids)


async def test_a_ticket_that_was_lost_after_its_claim_is_written_again(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *ids = await here.batch(ALPHA, 5)
        await here.planner.pass_once()
        await here.take_all()
        assert await here.planner.pass_once() == 0, "a worker may be about to start them"
        here.ahead.by_s = CLAIMED_BY_NOW_S + 0.1
        assert await here.planner.pass_once() == 5
        assert sorted(await here.staged()) == sorted(ids)


async def test_a_job_that_was_put_back_is_staged_when_it_is_due(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *ids = await here.batch(ALPHA, 2)
        await here.planner.pass_once()
        await here.take_all()
        first, second = await here.store.claims.start(here.worker, ids)
        now = await here.store.now()
        await here.store.claims.settle(here.worker, [put_back(first, now + A_DAY_S), put_back(second, now + 0.001)])
        here.ahead.by_s = 2.0
        await here.planner.pass_once()
        assert await here.staged() == [second.id]


@pytest.mark.parametrize("act", ["pause", "cancel"])
async def test_a_held_or_cancelled_batch_gets_no_tickets_and_is_forgotten(
    redis_url: str, tmp_path: Path, act: str
) -> None:
    async with desk(redis_url, tmp_path) as here:
        batch_id, *ids = await here.batch(ALPHA, 400)
        await here.planner.pass_once()
        if act == "pause":
            await here.store.batch_lifecycle.pause(batch_id, "by hand")
        else:
            await here.store.batch_lifecycle.cancel(batch_id)
        await here.take_all()
        assert await here.planner.pass_once() == 0
        here.ahead.by_s = 10.0
        assert await here.planner.pass_once() == 0
        assert here.planner._tickets == {}
        if act == "pause":
            await here.store.batch_lifecycle.resume(batch_id)
            await here.planner.pass_once()
            assert belonging(await here.staged(), ids) >= STAGED_BOUNDS[0]


async def test_blocked_jobs_wait_in_the_ledger_and_continue_when_a_person_has_fixed_the_cause(
    redis_url: str, tmp_path: Path
) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *ids = await here.batch(ALPHA, 4)
        await here.store.credentials.set_aside(
            "alpha", "main", ALL_MODELS, FailureClass.CREDENTIAL, "revoked", seen(here)
        )
        await here.scene.tools.fleet.share(here.store)
        assert await here.planner.pass_once() == 0
        await here.store.credentials.enable("alpha", "main")
        await here.scene.tools.fleet.share(here.store)
        assert await here.planner.pass_once() == len(ids)


async def test_jobs_of_an_unknown_model_are_staged_so_that_they_end(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        _, *ids = await here.batch(ALPHA, 4)
        await here.store.credentials.set_aside(
            "alpha", "main", "m", FailureClass.MODEL_MISSING, "no such model", seen(here)
        )
        await here.scene.tools.fleet.share(here.store)
        assert await here.planner.pass_once() == len(ids)


async def test_jobs_of_a_provider_that_was_removed_wait_for_it(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        await here.batch(chain("gone/m"), 4)
        assert await here.planner.pass_once() == 0


async def test_another_leader_stages_nothing_twice(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        await here.batch(ALPHA, 30)
        await here.planner.pass_once()
        other = planner_of(here.scene, here.store)
        assert await other.pass_once() == 0
        assert len(await here.staged()) == 30


async def test_a_lone_interactive_job_that_was_put_back_is_staged_before_a_backlog(
    redis_url: str, tmp_path: Path
) -> None:
    async with desk(redis_url, tmp_path) as here:
        await open_batch(here.store, 1)
        await here.batch(ALPHA, 500)
        await here.planner.pass_once()
        jobs = await new_jobs(here.store, 1, ALPHA, priority=Priority.INTERACTIVE)
        await here.store.intake.accept_jobs("default", jobs)
        await here.scene.redis.lpop("rq:queue:bulk")
        await here.planner.pass_once()
        assert await here.staged(Priority.INTERACTIVE) == [jobs[0].id]


async def test_a_tenant_whose_urgent_jobs_fill_the_slots_queues_while_another_waits(
    redis_url: str, tmp_path: Path
) -> None:
    async with desk(redis_url, tmp_path) as here:
        urgent = await singles(here.store, 300, chain=ALPHA, tenant="greedy", priority=Priority.INTERACTIVE)
        await here.planner.pass_once()
        assert len(await here.staged(Priority.INTERACTIVE)) == STAGED_BOUNDS[0], "nobody else waits"
        assert await stage_at_once(here.scene.redis, "greedy", []) == 0
        await here.take_all()
        await here.store.claims.start(here.worker, urgent[:100])
        await here.batch(ALPHA, 300, tenant="modest")
        here.ahead.by_s += CLAIMED_BY_NOW_S + 0.1
        await here.planner.pass_once()
        assert await here.staged(Priority.INTERACTIVE) == []
        in_turn = await here.staged()
        assert belonging(in_turn, urgent) == len(in_turn) / 2
        new = await new_jobs(here.store, 1, ALPHA, tenant="greedy", priority=Priority.NORMAL)
        assert await stage_at_once(here.scene.redis, "greedy", new) == 0
        assert await stage_at_once(here.scene.redis, "seldom", new) == 1


async def waits_of(here: Desk, batch_id: str) -> Waiting | None:
    """The batch's wait reason after some seconds of passes."""
    for _ in range(4):
        await here.planner.pass_once()
        here.ahead.by_s += 1.1
    view = await here.store.batches.view(batch_id)
    assert view is not None
    return view.waiting


async def test_a_batch_says_for_which_account_and_limit_it_waits_and_until_when(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path, requests_per_minute=1) as here:
        batch_id, *_ = await here.batch(ALPHA, 5)
        await here.planner.pass_once()
        (first,) = await here.staged()
        (job,) = await here.store.claims.start(here.worker, [first])
        await here.scene.tools.limiter.reserve(here.scene.tools.fleet.usable(ALPHA.steps[0]), 10)
        await here.take_all()
        said = await waits_of(here, batch_id)
        assert said is not None
        assert (said.hold, said.provider, said.model, said.account) == ("requests", "alpha", "m", "alpha:main")
        assert said.until is not None
        assert 50 < said.until - time.time() <= 60 / 0.99
        await here.cool("alpha", 120)
        said = await waits_of(here, batch_id)
        assert said is not None
        assert said.hold == "cooldown"
        assert said.until is not None
        assert 110 < said.until - time.time() <= 120
        assert job.id == first


async def test_a_batch_that_moves_waits_for_nothing(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, tmp_path) as here:
        batch_id, *ids = await here.batch(ALPHA, 4)
        await here.store.credentials.set_aside(
            "alpha", "main", ALL_MODELS, FailureClass.CREDENTIAL, "revoked", seen(here)
        )
        await here.scene.tools.fleet.share(here.store)
        said = await waits_of(here, batch_id)
        assert said is not None
        assert (said.hold, said.provider, said.until) == ("credential", "alpha", None)
        await here.store.credentials.enable("alpha", "main")
        await here.scene.tools.fleet.share(here.store)
        assert await waits_of(here, batch_id) is None
        assert belonging(await here.staged(), ids) == len(ids)


class Reads:
    """Counts how often the jobs of lanes are read."""

    def __init__(self, here: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lanes: list[Lane] = []
        self._heads = here.store.planning.heads
        monkeypatch.setattr(here.store.planning, "heads", self)

    async def __call__(self, lane: Lane, limit: int) -> list[Head]:
        self.lanes.append(lane)
        return await self._heads(lane, limit)


async def test_lanes_without_room_are_not_read_and_change_nothing(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(redis_url, tmp_path, requests_per_minute=60) as here:
        for _ in range(30):
            await here.batch(ALPHA, 2)
        await here.cool("alpha", 20)
        reads = Reads(here, monkeypatch)
        for _ in range(5):
            assert await here.planner.pass_once() == 0
        assert reads.lanes == []
        assert not any((await staged_ids(here.scene.redis)).values())


async def test_with_room_for_few_only_few_lanes_are_read_and_all_get_their_turn(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(redis_url, tmp_path, requests_per_minute=240) as here:
        batches = [await here.batch(ALPHA, 20) for _ in range(12)]
        reads, staged = Reads(here, monkeypatch), list[str]()
        for _ in range(6):
            before = len(reads.lanes)
            await here.planner.pass_once()
            assert 0 < len(reads.lanes) - before <= 8, "a second's worth ahead of the schedule, and one more"
            staged += await here.staged()
            await here.take_all()
            here.ahead.by_s += 0.4
        assert len(staged) >= 24
        turns = [belonging(staged, ids) for _, *ids in batches]
        assert max(turns) - min(turns) <= 1


async def test_chains_are_read_once_in_a_few_statements_and_forgotten_with_their_jobs(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(redis_url, tmp_path, requests_per_minute=60) as here:
        batches = [await here.batch(ALPHA.model_copy(update={"patience_s": float(each)}), 1) for each in range(30)]
        read: list[set[str]] = []
        chains = here.store.planning.chains

        async def counted(ids: Collection[str]) -> dict[str, Chain]:
            read.append(set(ids))
            return await chains(ids)

        monkeypatch.setattr(here.store.planning, "chains", counted)
        monkeypatch.setattr(here.store, "get_chain", None)
        for _ in range(3):
            await here.planner.pass_once()
        assert [len(each) for each in read] == [30, 0, 0]
        for batch_id, *_ in batches:
            await here.store.batch_lifecycle.cancel(batch_id)
        here.ahead.by_s += 60
        await here.take_all()
        for _ in range(2):
            await here.planner.pass_once()
        await here.batch(ALPHA, 1)
        await here.planner.pass_once()
        assert len(here.planner._chains) == 1


async def test_jobs_with_a_chain_each_are_all_staged_though_a_pass_looks_at_a_few(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.worker.planner.window.MOST_LANES", 4)
    async with desk(redis_url, tmp_path) as here:
        ids = set[str]()
        for number in range(10):
            own = ALPHA.model_copy(update={"patience_s": float(number)})
            (job,) = await new_jobs(here.store, 1, chain=own, priority=Priority.BULK)
            await here.store.intake.accept_jobs("default", [job])
            ids.add(job.id)
        staged = list[int]()
        for _ in range(3):
            await here.planner.pass_once()
            staged.append(len(await here.staged()))
        assert staged == [4, 8, 10] and set(await here.staged()) == ids


async def test_more_lanes_than_are_read_in_a_pass_take_turns_too(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.worker.planner.planner.LANES_PER_PASS", 4)
    async with desk(redis_url, tmp_path) as here:
        batches = [await here.batch(ALPHA, 40) for _ in range(10)]
        staged: list[str] = []
        for _ in range(5):
            await here.planner.pass_once()
            staged += await here.staged()
            await here.take_all()
            here.ahead.by_s += 0.4
        turns = [belonging(staged, ids) for _, *ids in batches]
        assert min(turns) > 0
