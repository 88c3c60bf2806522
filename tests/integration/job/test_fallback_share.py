"""Only a share of a batch's jobs may be answered by another step than the first, on any number of workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ledger_help import HOUR_S, new_worker, put_back
from redis.asyncio import Redis
from run_help import Stage, chain, planner_of, stage

from understudy.models.failure import Scope
from understudy.models.ids import new_id
from understudy.models.jobs.execution import Settled, StartedJob
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.queue.tickets import staged_ids
from understudy.models.routing.chain import Chain, Step, When
from understudy.models.state import JobState, Priority
from understudy.models.store import Store
from understudy.worker.budgets import fallback_quota
from understudy.worker.budgets.fallback_quota import UNDER_WAY, FallbackQuota, QuotaUsedUp
from understudy.worker.job.run import JobRun
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Deployment

pytestmark = pytest.mark.timeout(60)

BODY = '{"messages":[{"role":"user","content":"How many legs has a spider?"}]}'
LEAD_IS_DOWN = {"provider": "alpha", "fail": "server"}
LEAD_IS_ELSEWHERE = {"provider": "alpha", "fail": "region"}


def shared(share: float, **policy: Any) -> Chain:
    return chain("alpha/m", "beta/m", patience_s=0, max_fallback_share=share, **policy)


@dataclass
class Desk:
    """A ledger with a batch, and a worker that runs its jobs."""

    scene: Stage
    store: Store
    worker: str

    async def batch(self, of: Chain, count: int, priority: Priority = Priority.BULK) -> tuple[str, list[str]]:
        batch_id, expires_at = new_id("batch"), await self.store.now() + HOUR_S
        await self.store.intake.create_batch(NewBatch(batch_id, priority, expires_at=expires_at))
        jobs = [
            NewJob(new_id("job"), BODY, of, f"line-{line}", line, priority=priority, expires_at=expires_at)
            for line in range(count)
        ]
        await self.store.intake.add_jobs(batch_id, jobs)
        await self.store.intake.open_batch(batch_id, count)
        return batch_id, [job.id for job in jobs]

    async def run(self, ids: list[str], *others: FallbackQuota) -> list[Settled]:
        """All at once, shared among this worker and others."""
        workers = [self.scene.tools, *(replace(self.scene.tools, fallback_quota=each) for each in others)]

        async def work(index: int, job: StartedJob) -> Settled:
            tools = workers[index % len(workers)]
            settled = await JobRun(job, await self.store.get_chain(job.chain_id), tools).run()
            await self.store.claims.settle(self.worker, [settled])
            await tools.fallback_quota.release(job)
            return settled

        async with asyncio.timeout(20):
            while len(started := await self.store.claims.start(self.worker, ids)) < len(ids):
                await self.store.claims.settle(self.worker, [put_back(job) for job in started])
                await asyncio.sleep(0.05)
        return list(await asyncio.gather(*(work(index, job) for index, job in enumerate(started))))

    async def taken(self, batch_id: str) -> int:
        fields = await self.scene.redis.hvals(f"understudy:fallbacks:{batch_id}")
        return sum(int(value.partition(b"|")[0]) for value in fields)


@asynccontextmanager
async def desk(redis_url: str, store: Store, *rules: dict[str, Any], **more: Any) -> AsyncIterator[Desk]:
    async with stage(redis_url, *rules, ledger=store, **more) as scene:
        yield Desk(scene, store, await new_worker(store))


async def may_acquire(quota: FallbackQuota, job: StartedJob) -> bool:
    try:
        return await quota.acquire(job, 0.5)
    except QuotaUsedUp:
        return False


def who(outcomes: list[Settled]) -> Counter[str]:
    return Counter(each.result.provider or "nobody" if each.result else str(each.state) for each in outcomes)


async def test_a_job_whose_lead_is_not_the_first_step_waits_for_its_lead(redis_url: str, store: Store) -> None:
    for_images = Step(provider="alpha", model="x", when=When(modality="image"))
    of = shared(0.0).model_copy(update={"steps": (for_images, *shared(0.0).steps)})
    async with desk(redis_url, store, LEAD_IS_DOWN) as here:
        _, ids = await here.batch(of, 1)
        [settled] = await here.run(ids)
        assert here.scene.calls("beta") == 0
    assert settled.state is JobState.QUEUED
    assert "max_fallback_share" in str(settled.waiting)


async def test_two_workers_together_use_all_of_the_share_and_no_more(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE) as here:
        batch_id, ids = await here.batch(shared(0.25), 18)
        other, ended = FallbackQuota(Leases(here.scene.redis, "w2"), store, quiet_s=0), Counter[str]()
        while ids:
            outcomes = await here.run(ids, other)
            waiting = [each for each in outcomes if each.state is JobState.QUEUED]
            assert {each.waiting and each.waiting.reason for each in waiting} <= {UNDER_WAY}
            ended += who([each for each in outcomes if each not in waiting])
            ids = [each.job_id for each in waiting]
        assert ended == {"beta": 4, "nobody": 14}
        assert await here.taken(batch_id) == 0
        view = await store.batches.view(batch_id)
        assert view is not None and view.fallbacks == 4


async def test_what_waits_for_the_lead_says_so(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_DOWN) as here:
        _, ids = await here.batch(shared(0.5), 2)
        assert who(await here.run(ids[:1])) == {"beta": 1}
        [waiting] = await here.run(ids[1:])
    assert waiting.state is JobState.QUEUED and waiting.not_before > 0
    assert "max_fallback_share is used up" in str(waiting.waiting)


async def test_one_after_the_other_use_all_of_the_share_and_no_more(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE) as here:
        _, ids = await here.batch(shared(0.5), 7)
        outcomes = [settled for each in ids for settled in await here.run([each])]
    assert [each.state for each in outcomes] == [JobState.SUCCEEDED] * 3 + [JobState.FAILED] * 4
    failed = outcomes[-1].result
    assert failed is not None and failed.status_code == 403  # the primary's own error


async def test_a_share_of_none_never_asks_another_step(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_DOWN) as here:
        _, ids = await here.batch(shared(0.0), 2)
        outcomes = await here.run(ids)
        assert here.scene.calls("beta") == 0
    assert [each.state for each in outcomes] == [JobState.QUEUED] * 2


async def test_interactive_jobs_do_not_wait_for_the_lead_when_the_share_is_used_up(
    redis_url: str, store: Store
) -> None:
    async with desk(redis_url, store, LEAD_IS_DOWN) as here:
        _, ids = await here.batch(shared(0.0), 1, Priority.INTERACTIVE)
        [settled] = await here.run(ids)
    assert settled.state is JobState.FAILED and settled.result is not None and settled.result.status_code == 500


async def test_a_fallback_that_did_not_answer_is_free_for_another(redis_url: str, store: Store) -> None:
    beta = {"provider": "beta", "fail": "bad_request", "first": 1}
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE, beta) as here:
        batch_id, ids = await here.batch(shared(0.5), 2)
        assert [each.state for each in await here.run(ids[:1])] == [JobState.FAILED]
        assert await here.taken(batch_id) == 0
        assert who(await here.run(ids[1:])) == {"beta": 1}


async def test_a_wiped_redis_forgets_no_fallback_that_was_answered(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE) as here:
        _, ids = await here.batch(shared(0.5), 4)
        assert [who(await here.run([each])) for each in ids[:2]] == [{"beta": 1}] * 2
        await here.scene.redis.flushdb()
        assert [each.state for each in await here.run(ids[2:])] == [JobState.FAILED] * 2


async def test_after_a_wipe_no_job_falls_back_until_all_workers_have_reported_theirs(
    redis_url: str, store: Store
) -> None:
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE) as here:
        batch_id, ids = await here.batch(shared(0.5), 2)
        one, two = await store.claims.start(here.worker, ids)
        mine, other = here.scene.tools.fallback_quota, FallbackQuota(Leases(here.scene.redis, "w2"), store, quiet_s=60)
        assert await mine.acquire(one, 0.5)
        await here.scene.redis.flushdb()
        with pytest.raises(QuotaUsedUp):
            await other.acquire(two, 0.5)
        settled = await JobRun(two, shared(0.5), replace(here.scene.tools, fallback_quota=other)).run()
        assert settled.state is JobState.QUEUED and "Redis was wiped" in str(settled.waiting)
        await here.scene.leases.beat()
        with pytest.raises(QuotaUsedUp, match=UNDER_WAY):
            await FallbackQuota(Leases(here.scene.redis, "w2"), store, quiet_s=0).acquire(two, 0.5)
        assert await here.taken(batch_id) == 1


async def test_the_fallbacks_of_a_killed_worker_are_free_when_their_lease_ends(
    redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback_quota, "FALLBACK_LEASE_S", 0.5)
    async with desk(redis_url, store) as here:
        _, ids = await here.batch(shared(0.5), 2)
        one, two = await store.claims.start(here.worker, ids)
        assert await here.scene.tools.fallback_quota.acquire(one, 0.5)
        survivor = FallbackQuota(Leases(here.scene.redis, "w2"), store, quiet_s=0)
        with pytest.raises(QuotaUsedUp, match=UNDER_WAY):
            await survivor.acquire(two, 0.5)
        async with asyncio.timeout(5):
            while not await may_acquire(survivor, two):
                await asyncio.sleep(0.05)


async def test_the_planner_leaves_jobs_alone_that_only_a_cooling_lead_may_answer(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE) as here:
        used_up = await here.batch(shared(0.5), 4)
        for each in used_up[1][:2]:
            await here.run([each])
        with_places = await here.batch(shared(0.5, spill=True), 2)
        deployment = Deployment("alpha", "m", "main", "alpha:main")
        await here.scene.tools.limiter.cool(deployment, Scope.PROVIDER, 60.0, "a test")
        planner = planner_of(here.scene, store)
        await planner.pass_once()
        assert sorted((await staged_ids(here.scene.redis))[Priority.BULK.queue]) == sorted(with_places[1])


async def test_without_redis_no_job_falls_back(redis_url: str, store: Store) -> None:
    async with desk(redis_url, store, LEAD_IS_ELSEWHERE) as here:
        _, ids = await here.batch(shared(1.0), 1)
        async with Redis.from_url("redis://127.0.0.1:9") as away:
            [job] = await store.claims.start(here.worker, ids)
            settled = await JobRun(
                job, shared(1.0), replace(here.scene.tools, fallback_quota=FallbackQuota(Leases(away, "w2"), store))
            ).run()
        assert settled.state is JobState.QUEUED and len(settled.attempts) == 1
        assert here.scene.calls("beta") == 0
