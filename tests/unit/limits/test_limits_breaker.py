"""The breaker over a fake Redis with simulated time: how it opens, is probed, closes, and admits all calls again."""

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from limiter_fleet import BEGIN_MS, moment

from understudy.models.failure import Scope
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Hold, Refusal
from understudy.worker.limits.limiter import Limiter


class Fleet:
    """Two workers of one fleet, and the deployment that fails, with two credentials."""

    def __init__(self) -> None:
        redis = FakeAsyncRedis(server=FakeServer())
        self.workers = [Limiter(Leases(redis, f"w{number}")) for number in range(2)]
        self.keys = [Candidate(Deployment("alpha", "m", key, f"alpha:{key}"), 6000) for key in ("one", "two")]
        self.at_s(0.0)

    def at_s(self, seconds: float) -> None:
        self.now_ms = BEGIN_MS + seconds * 1000
        for worker in self.workers:
            worker.scripts.now_ms = self.now_ms

    async def ask(self, worker: int = 0, key: int = 0) -> Grant | Refusal:
        return await self.workers[worker].reserve([self.keys[key]], 1)

    async def fails(self, began_s: float | None = None, *, probed: bool = True) -> float:
        """Five failures in a row were seen. Returns the rest in seconds."""
        began_ms = None if began_s is None else BEGIN_MS + began_s * 1000
        end = await self.workers[0].cool(
            self.keys[0].deployment, Scope.PROVIDER, None, "server", began_ms=began_ms, probed=probed
        )
        return end - self.now_ms / 1000

    async def recovers(self) -> None:
        probe = await self.ask()
        assert isinstance(probe, Grant), probe
        await self.workers[0].answered(probe)
        await self.workers[0].release(probe, 1)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    yield Fleet()


async def test_after_failures_in_a_row_only_probes_start_in_the_whole_fleet(fleet: Fleet) -> None:
    assert await fleet.fails() == pytest.approx(2.0)
    fleet.at_s(2.0)
    assert isinstance(await fleet.ask(worker=1, key=1), Grant)
    for worker, key in ((0, 0), (0, 1), (1, 0)):
        refused = await fleet.ask(worker, key)
        assert isinstance(refused, Refusal) and refused.hold is Hold.BREAKER
        assert refused.until == moment(3.0)


async def test_after_a_single_overload_no_call_waits_for_a_probe(fleet: Fleet) -> None:
    await fleet.fails(probed=False)
    fleet.at_s(2.0)
    assert all([isinstance(await fleet.ask(), Grant) for _ in range(3)])


@pytest.mark.parametrize("probes_stall", [True, False], ids=["probes stall", "probes fail"])
@pytest.mark.parametrize("open_s", [5.0, 20.0, 60.0, 3600.0])
async def test_it_is_probed_seldom_and_yet_soon_after_its_recovery(
    fleet: Fleet, open_s: float, probes_stall: bool
) -> None:
    await fleet.fails()
    probes, now = 0, 0.0
    while now < open_s:
        fleet.at_s(now)
        reply = await fleet.ask()
        if isinstance(reply, Grant):
            probes += 1
            if not probes_stall:
                await fleet.fails(now)
        else:
            now = max(reply.until - BEGIN_MS / 1000, now + 0.001)
    assert now - open_s <= min(max(0.4 * open_s, 2.0), 61.0)
    assert probes <= 20 + open_s / 25


async def test_what_a_call_from_before_the_recovery_says_is_not_believed(fleet: Fleet) -> None:
    await fleet.fails()
    fleet.at_s(20.0)
    await fleet.recovers()
    fleet.at_s(25.0)
    await fleet.fails(began_s=19.0)
    assert isinstance(await fleet.ask(), Grant)
    await fleet.fails(began_s=24.0)
    refused = await fleet.ask()
    assert isinstance(refused, Refusal) and refused.hold is Hold.BREAKER


async def test_a_probe_that_stalled_does_not_speak_for_a_later_one_that_is_under_way(fleet: Fleet) -> None:
    await fleet.fails()
    fleet.at_s(5.0)
    assert isinstance(await fleet.ask(), Grant)
    fleet.at_s(14.0)
    later = await fleet.ask(worker=1)
    assert isinstance(later, Grant)
    fleet.at_s(15.0)
    await fleet.fails(began_s=5.0)
    await fleet.workers[1].answered(later)
    assert isinstance(await fleet.ask(), Grant)


async def test_after_the_recovery_no_herd_starts_on_any_of_its_keys_and_soon_all_may(fleet: Fleet) -> None:
    stuck = [await fleet.ask() for _ in range(20)]
    assert all(isinstance(each, Grant) for each in stuck)
    await fleet.fails()
    fleet.at_s(20.0)
    await fleet.recovers()
    for key in (0, 1):
        replies = [await fleet.ask(worker=1, key=key) for _ in range(20)]
        assert 1 <= sum(isinstance(reply, Grant) for reply in replies) <= 3
        assert isinstance(replies[-1], Refusal) and replies[-1].hold is Hold.STARTING
    calls, flying = 0, [reply for reply in replies if isinstance(reply, Grant)]
    for step in range(1, 16):
        for grant in flying:
            await fleet.workers[1].release(grant, 1)
        fleet.at_s(20.0 + step * 0.3)
        flying = [reply for _ in range(60) if isinstance(reply := await fleet.ask(worker=1, key=1), Grant)]
        calls = len(flying)
    assert calls >= 30


async def test_a_refusal_tells_since_when_nothing_was_answered(fleet: Fleet) -> None:
    for at_s in (0.0, 2.0, 5.0):
        fleet.at_s(at_s)
        await fleet.fails(at_s)
    refused = await fleet.ask()
    assert isinstance(refused, Refusal) and refused.since == moment(0.0)
    assert [each.refusing_for_s for each in await fleet.workers[1].outlook(fleet.keys, 1.0)] == [5.0, 5.0]
    fleet.at_s(20.0)
    await fleet.recovers()
    assert [each.refusing_for_s for each in await fleet.workers[1].outlook(fleet.keys, 1.0)] == [None, None]
