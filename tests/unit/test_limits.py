"""The fleet-wide limiter, with its scripts in process and its time injected."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from models import keys
from models.failure import Scope
from worker.failures import LimitSignals
from worker.limits import BULK, NO_LIMIT, URGENT, Candidate, Deployment, Grant, Hold, Limiter, Outlook, Refusal

BEGIN_MS = 1_800_000_000_000.0
EXAMPLES = settings(max_examples=30)
T = TypeVar("T")


def candidate(
    key: str = "main", model: str = "large", *, rpm: int | None = None, tpm: int | None = None, most: int | None = None
) -> Candidate:
    return Candidate(Deployment("alpha", model, key, f"alpha:{key}"), rpm, tpm, most)


class Fleet:
    """Workers that share a Redis and a clock."""

    def __init__(self, workers: int = 1, lease_s: float = 15.0) -> None:
        self.redis = FakeAsyncRedis(server=FakeServer())
        self.workers = [Limiter(self.redis, f"w{number}", lease_s=lease_s) for number in range(workers)]
        self.at_ms(0.0)

    def at_ms(self, ms: float) -> None:
        self.ms = ms
        for worker in self.workers:
            worker.now_ms = BEGIN_MS + ms

    def after_s(self, seconds: float) -> None:
        self.at_ms(self.ms + seconds * 1000)

    async def has_proven_itself(self) -> None:
        """Slow start is over at the deployment that tests use unless they say otherwise."""
        await self.redis.hset(keys.rate("alpha:main", "large"), "window", 1000)

    @property
    def one(self) -> Limiter:
        return self.workers[0]

    async def grant(self, *candidates: Candidate, tokens: int = 10) -> Grant:
        reply = await self.one.reserve(candidates, tokens)
        assert isinstance(reply, Grant), reply
        return reply

    async def refusal(self, *candidates: Candidate, tokens: int = 10) -> Refusal:
        reply = await self.one.reserve(candidates, tokens)
        assert isinstance(reply, Refusal), reply
        return reply

    async def grants_now(self, *candidates: Candidate, tokens: int = 10) -> int:
        """How many calls can start at this moment, without a wait."""
        for number in range(1000):
            reply = await self.one.reserve(candidates, tokens)
            if isinstance(reply, Refusal):
                return number
            if reply.wait_s:
                await self.one.cancel(reply)
                return number
        raise AssertionError("no limit holds")

    async def cools_for_s(self, *candidates: Candidate) -> float:
        refused = await self.refusal(*candidates)
        assert refused.hold in (Hold.COOLDOWN, Hold.BREAKER)
        return round(refused.until - (BEGIN_MS + self.ms) / 1000, 3)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    made = Fleet()
    yield made
    await made.redis.aclose()


def simulated(story: Callable[[Fleet], Awaitable[T]], workers: int = 1) -> T:
    """Run one example of a property on a fleet of its own."""

    async def tell() -> T:
        fleet = Fleet(workers)
        try:
            return await story(fleet)
        finally:
            await fleet.redis.aclose()

    return asyncio.run(tell())


def worst_excess(starts: Sequence[tuple[float, float]], per_ms: float) -> float:
    """By how much the costs that start within any window exceed what the rate gives for its length."""
    starts, worst = sorted(starts), 0.0
    for first in range(len(starts)):
        spent = 0.0
        for at, cost in starts[first:]:
            spent += cost
            worst = max(worst, spent - per_ms * (at - starts[first][0]))
    return worst


Move = tuple[float, int, float, int]
token_stories = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 2000)),
        st.integers(1, 5000),
        st.floats(0, 1),
        st.sampled_from([0, 0, 1, 9]),
    ),
    min_size=1,
    max_size=60,
)
"""Milliseconds that pass, tokens that a call reserves, the share that an earlier one used of its own, and which."""

gaps_ms = st.lists(st.one_of(st.just(0.0), st.floats(0, 3000)), min_size=1, max_size=60)


class TestRequests:
    @EXAMPLES
    @given(gaps_ms, st.sampled_from([1, 7, 60, 90, 600, 3000]), st.data())
    def test_no_window_starts_more_than_its_share_and_one_second_of_burst(
        self, gaps: list[float], rpm: int, data: st.DataObject
    ) -> None:
        async def story(fleet: Fleet) -> list[tuple[float, float]]:
            starts = []
            for gap in gaps:
                fleet.at_ms(fleet.ms + gap)
                reply = await fleet.workers[data.draw(st.integers(0, 2))].reserve([candidate(rpm=rpm)], 10)
                if isinstance(reply, Grant):
                    assert 0 <= reply.wait_s <= 1
                    starts.append((fleet.ms + reply.wait_s * 1000, 1.0))
            return starts

        starts = simulated(story, workers=3)
        assert starts
        assert worst_excess(starts, rpm / 60_000) <= max(1, rpm / 60) + 0.001

    @EXAMPLES
    @given(gaps_ms, st.sampled_from([60, 90, 600]), st.data())
    def test_cancelled_calls_never_let_a_window_start_more(
        self, gaps: list[float], rpm: int, data: st.DataObject
    ) -> None:
        async def story(fleet: Fleet) -> list[tuple[float, float]]:
            held: list[tuple[float, Grant]] = []
            for gap in gaps:
                fleet.at_ms(fleet.ms + gap)
                if held and data.draw(st.booleans()):
                    await fleet.one.cancel(held.pop(data.draw(st.integers(0, len(held) - 1)))[1])
                reply = await fleet.one.reserve([candidate(rpm=rpm)], 10)
                if isinstance(reply, Grant):
                    held.append((fleet.ms + reply.wait_s * 1000, reply))
            return [(start, 1.0) for start, _ in held]

        assert worst_excess(simulated(story), rpm / 60_000) <= max(1, rpm / 60) + 0.001

    async def test_a_refusal_says_when_our_own_pacing_allows_it(self, fleet: Fleet) -> None:
        paced = candidate(rpm=20)
        await fleet.grant(paced)
        refused = await fleet.refusal(paced)
        assert refused.hold is Hold.REQUESTS
        assert refused.until == pytest.approx(BEGIN_MS / 1000 + 3)
        fleet.after_s(2.5)
        assert (await fleet.grant(paced)).wait_s == pytest.approx(0.5)

    async def test_a_cancelled_call_gives_everything_back(self, fleet: Fleet) -> None:
        limited = candidate(rpm=60, tpm=600, most=1)
        await fleet.one.cancel(await fleet.grant(limited, tokens=10))
        assert (await fleet.grant(limited, tokens=10)).wait_s == 0

    async def test_a_share_of_the_schedule_that_went_by_is_not_given_back(self, fleet: Fleet) -> None:
        paced = candidate(rpm=90)
        first = await fleet.grant(paced)
        await fleet.grant(paced)
        fleet.at_ms(1100)
        await fleet.grant(paced)
        await fleet.grant(paced)
        await fleet.one.cancel(first)
        await fleet.refusal(paced)

    async def test_a_cancelled_call_at_a_learned_rate_gives_it_back(self, fleet: Fleet) -> None:
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 0.05, "429", too_fast=True)
        fleet.after_s(5)
        await fleet.one.cancel(await fleet.grant(candidate()))
        assert (await fleet.grant(candidate())).wait_s == 0


class TestTokens:
    @EXAMPLES
    @given(st.lists(st.tuples(st.floats(0, 3000), st.integers(1, 400)), min_size=1, max_size=60))
    def test_no_window_starts_more_tokens_than_its_share_and_one_second_of_burst(
        self, calls: list[tuple[float, int]]
    ) -> None:
        async def story(fleet: Fleet) -> list[tuple[float, float]]:
            starts = []
            for gap, tokens in calls:
                fleet.at_ms(fleet.ms + gap)
                reply = await fleet.one.reserve([candidate(tpm=6000)], tokens)
                if isinstance(reply, Grant):
                    starts.append((fleet.ms + reply.wait_s * 1000, float(tokens)))
            return starts

        assert worst_excess(simulated(story), 0.1) <= max(100, *(tokens for _, tokens in calls)) + 0.01

    @given(token_stories)
    @settings(max_examples=60)
    def test_whatever_is_given_back_no_start_is_more_than_a_bucket_of_one_second_has(self, moves: list[Move]) -> None:
        async def story(fleet: Fleet) -> list[tuple[float, float]]:
            begun: list[tuple[float, Grant]] = []
            used: dict[int, float] = {}
            for gap, reserved, share, which in moves:
                fleet.at_ms(fleet.ms + gap)
                reply = await fleet.one.reserve([candidate(tpm=60_000)], reserved, BULK)
                if isinstance(reply, Grant):
                    begun.append((fleet.ms + reply.wait_s * 1000, reply))
                ended = [index for index, (at, _) in enumerate(begun) if at <= fleet.ms and index not in used]
                if which < len(ended):
                    _, grant = begun[ended[which]]
                    used[ended[which]] = tokens = round(grant.tokens * share)
                    await fleet.one.release(grant, tokens)
            return [(at, used.get(index, grant.tokens)) for index, (at, grant) in enumerate(begun)]

        level, before = 1000.0, 0.0
        for at, cost in sorted(simulated(story), key=lambda start: start[0]):
            level = min(1000.0, level + at - before)
            assert level >= min(cost, 1000) - 0.1, "it would have been refused"
            level, before = level - cost, at

    async def test_what_was_not_used_is_lost_to_calls_behind_one_that_waits_for_a_whole_second(
        self, fleet: Fleet
    ) -> None:
        paced = candidate(tpm=60_000)
        small = await fleet.grant(paced, tokens=500)
        assert (await fleet.grant(paced, tokens=2000)).wait_s == pytest.approx(0.5)
        await fleet.one.release(small, 100)
        until = (await fleet.refusal(paced, tokens=500)).until
        assert until - BEGIN_MS / 1000 == pytest.approx(2 - 0.5, abs=0.01)

    async def test_a_call_larger_than_the_burst_starts_when_idle_and_pushes_the_schedule(self, fleet: Fleet) -> None:
        paced = candidate(tpm=6000)
        assert (await fleet.grant(paced, tokens=1000)).wait_s == 0
        refused = await fleet.refusal(paced, tokens=100)
        assert refused.hold is Hold.TOKENS
        assert refused.until == pytest.approx(BEGIN_MS / 1000 + 10)

    async def test_unused_tokens_can_be_used_again(self, fleet: Fleet) -> None:
        paced = candidate(tpm=6000)
        await fleet.one.release(await fleet.grant(paced, tokens=1000), 100)
        refused_until = (BEGIN_MS / 1000) + 1
        assert (await fleet.grant(paced, tokens=100)).wait_s == pytest.approx(refused_until - BEGIN_MS / 1000)

    async def test_tokens_used_beyond_the_reservation_are_paid_for_later(self, fleet: Fleet) -> None:
        paced = candidate(tpm=6000)
        await fleet.one.release(await fleet.grant(paced, tokens=10), 50_000)
        assert (await fleet.refusal(paced)).until == pytest.approx(BEGIN_MS / 1000 + 499.1 - 0.5, abs=0.01)
        assert await fleet.redis.pttl(keys.rate("alpha:main", "large")) > 500_000, (
            "a debt outlives the key's usual minute"
        )

    async def test_a_call_whose_usage_is_unknown_keeps_its_reservation(self, fleet: Fleet) -> None:
        paced = candidate(tpm=6000)
        await fleet.one.release(await fleet.grant(paced, tokens=1000), None)
        assert (await fleet.refusal(paced, tokens=100)).until == pytest.approx(BEGIN_MS / 1000 + 10)


class TestAhead:
    async def test_bulk_leaves_room_before_it_for_who_is_urgent(self, fleet: Fleet) -> None:
        paced = candidate(rpm=600)
        while isinstance(await fleet.one.reserve([paced], 10, BULK), Grant):
            pass
        urgent = await fleet.one.reserve([paced], 10, URGENT)
        assert isinstance(urgent, Grant)
        assert 0.5 < urgent.wait_s <= 0.7

    @pytest.mark.parametrize("rpm", [20, 60, 100])
    async def test_a_slow_limit_has_its_next_call_booked_and_who_is_urgent_finds_the_one_after(
        self, fleet: Fleet, rpm: int
    ) -> None:
        paced, cost_s = candidate(rpm=rpm), 60 / rpm
        waits = []
        while isinstance(reply := await fleet.one.reserve([paced], 10, BULK), Grant):
            waits.append(reply.wait_s)
        assert waits[-1] <= 2.0
        assert (len(waits) >= 2) == (cost_s <= 2.0)
        if cost_s <= 2.0:
            assert isinstance(await fleet.one.reserve([paced], 10, URGENT), Grant)

    async def test_a_refused_job_asks_again_before_the_start_that_is_free(self, fleet: Fleet) -> None:
        paced = candidate(rpm=600)
        while isinstance(reply := await fleet.one.reserve([paced], 10, BULK), Grant):
            last = reply.wait_s
        assert reply.until - BEGIN_MS / 1000 == pytest.approx(last + 0.1 - 0.25, abs=0.01)

    async def test_a_call_that_began_late_delays_the_next_at_a_slow_limit(self, fleet: Fleet) -> None:
        paced = candidate(rpm=60)
        await fleet.grant(paced)
        first, second = [await fleet.one.reserve([paced], 10, BULK) for _ in range(2)]
        assert isinstance(first, Grant)
        assert isinstance(second, Grant)
        fleet.at_ms(1300)
        assert await fleet.one.still_holds(first)
        fleet.at_ms(2000)
        waiting = asyncio.create_task(fleet.one.still_holds(second))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        fleet.at_ms(2300)
        assert await waiting


class TestInFlight:
    @EXAMPLES
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["reserve", "release", "cancel", "beat"])), max_size=60)
    )
    def test_the_fleet_never_has_more_in_flight_than_the_limit(self, acts: list[tuple[int, str]]) -> None:
        async def story(fleet: Fleet) -> None:
            held: list[list[Grant]] = [[], [], []]
            limited = candidate(rpm=6000, most=4)
            for number, act in acts:
                worker, own = fleet.workers[number], held[number]
                if act == "beat":
                    await worker.beat({("alpha:main", "large"): len(own)})
                elif act != "reserve" and own:
                    await (worker.release(own.pop(), 10) if act == "release" else worker.cancel(own.pop()))
                elif act == "reserve":
                    reply = await worker.reserve([limited], 10)
                    full = sum(map(len, held)) == 4
                    assert isinstance(reply, Refusal) == full
                    if isinstance(reply, Grant):
                        own.append(reply)
                    fleet.at_ms(fleet.ms + 10)

        simulated(story, workers=3)

    async def test_calls_of_a_dead_worker_end_with_its_lease(self) -> None:
        fleet, limited = Fleet(2), candidate(most=1)
        await fleet.workers[1].reserve([limited], 10)
        fleet.after_s(14)
        assert (await fleet.refusal(limited)).hold is Hold.IN_FLIGHT
        fleet.after_s(2)
        await fleet.grant(limited)
        await fleet.redis.aclose()

    async def test_a_beat_renews_the_lease(self) -> None:
        fleet, limited = Fleet(2), candidate(most=1)
        await fleet.workers[1].reserve([limited], 10)
        fleet.after_s(10)
        await fleet.workers[1].beat({("alpha:main", "large"): 1})
        fleet.after_s(10)
        assert (await fleet.refusal(limited)).hold is Hold.IN_FLIGHT
        await fleet.redis.aclose()

    async def test_a_beat_mends_a_count_whose_release_was_lost(self, fleet: Fleet) -> None:
        limited = candidate(most=1)
        await fleet.grant(limited)
        await fleet.one.beat({})
        await fleet.grant(limited)

    async def test_a_beat_counts_the_reservations_that_it_met_under_way(self, fleet: Fleet) -> None:
        limited = candidate(most=1)
        reserving = asyncio.create_task(fleet.one.reserve([limited], 10))
        await asyncio.sleep(0)
        await fleet.one.beat({("alpha:main", "large"): 0})
        assert isinstance(await reserving, Grant)
        assert (await fleet.refusal(limited)).hold is Hold.IN_FLIGHT

    async def test_a_full_deployment_stays_full_while_its_pacing_waits_longer(self, fleet: Fleet) -> None:
        limited = candidate(rpm=75, most=1)
        await fleet.grant(limited)
        await fleet.refusal(limited)

    async def test_fields_of_workers_long_dead_are_forgotten(self) -> None:
        fleet, flight = Fleet(2), keys.flight("alpha:main", "large")
        await fleet.workers[1].reserve([candidate()], 10)
        fleet.after_s(400)
        await fleet.one.beat({("alpha:main", "large"): 1})
        assert await fleet.redis.hkeys(flight) == [b"w0"]
        await fleet.redis.aclose()


class TestCooldowns:
    async def test_a_cooldown_is_refused_however_short(self, fleet: Fleet) -> None:
        end = await fleet.one.cool(candidate().deployment, Scope.MODEL, 0.2, "429")
        refused = await fleet.refusal(candidate())
        assert refused.until == end == pytest.approx(BEGIN_MS / 1000 + 0.2)

    @EXAMPLES
    @given(st.lists(st.tuples(st.floats(0, 5000), st.one_of(st.none(), st.floats(0.05, 60))), min_size=1, max_size=12))
    def test_a_longer_cooldown_is_never_shortened(self, refusals: list[tuple[float, float | None]]) -> None:
        async def story(fleet: Fleet) -> None:
            end = 0.0
            for gap, hint_s in refusals:
                fleet.at_ms(fleet.ms + gap)
                now_s = (BEGIN_MS + fleet.ms) / 1000
                before, end = end, await fleet.one.cool(candidate().deployment, Scope.MODEL, hint_s, "429")
                assert end >= before - 0.001
                if hint_s is not None:
                    assert end >= now_s + hint_s - 0.002

        simulated(story)

    async def test_without_a_hint_it_doubles_from_two_seconds_to_a_minute(self, fleet: Fleet) -> None:
        lengths = []
        for _ in range(7):
            await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
            lengths.append(await fleet.cools_for_s(candidate()))
            fleet.after_s(lengths[-1] + 0.001)
        assert lengths == [2, 4, 8, 16, 32, 60, 60]

    async def test_a_refused_herd_counts_as_one_refusal(self, fleet: Fleet) -> None:
        for _ in range(50):
            await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
            fleet.at_ms(fleet.ms + 1)
        fleet.after_s(2)
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
        assert await fleet.cools_for_s(candidate()) == 4

    async def test_hints_are_kept_within_sane_bounds(self, fleet: Fleet) -> None:
        await fleet.one.cool(candidate().deployment, Scope.MODEL, -5.0, "429")
        assert await fleet.cools_for_s(candidate()) == 0.05
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 1e9, "429")
        assert await fleet.cools_for_s(candidate()) == 86_400

    async def test_after_several_without_a_hint_one_probe_a_second_until_an_answer(self, fleet: Fleet) -> None:
        await fleet.has_proven_itself()
        for length in (2, 4):
            await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
            fleet.after_s(length)
        probe = await fleet.grant(candidate())
        assert probe.streak == 2
        assert await fleet.cools_for_s(candidate()) == 1
        fleet.after_s(1)
        await fleet.grant(candidate())
        assert (await fleet.refusal(candidate())).hold is Hold.COOLDOWN
        await fleet.one.answered(probe)
        for _ in range(20):
            assert (await fleet.grant(candidate())).streak == 0

    async def test_after_a_hinted_cooldown_nobody_probes(self, fleet: Fleet) -> None:
        await fleet.has_proven_itself()
        for _ in range(3):
            await fleet.one.cool(candidate().deployment, Scope.MODEL, 1.0, "429")
            fleet.after_s(1)
        await fleet.grant(candidate())
        await fleet.grant(candidate())

    async def test_refusals_without_a_hint_amid_a_hinted_cooldown_change_nothing(self, fleet: Fleet) -> None:
        await fleet.has_proven_itself()
        for _ in range(3):
            await fleet.one.cool(candidate().deployment, Scope.MODEL, 1.0, "429")
            await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
            fleet.after_s(1)
        await fleet.grant(candidate())
        await fleet.grant(candidate())

    async def test_an_answer_does_not_end_a_cooldown_that_began_after_its_call(self, fleet: Fleet) -> None:
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 1.0, "429")
        fleet.after_s(1)
        early = await fleet.grant(candidate())
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 10.0, "429")
        await fleet.one.answered(early)
        assert await fleet.cools_for_s(candidate()) == 10

    @pytest.mark.parametrize(
        ("scope", "cooled"),
        [
            (Scope.MODEL, {("one", "large")}),
            (Scope.ACCOUNT, {("one", "large"), ("one", "small")}),
            (Scope.PROVIDER, {("one", "large"), ("two", "large")}),
        ],
    )
    async def test_a_cooldown_covers_its_scope_and_nothing_else(
        self, fleet: Fleet, scope: Scope, cooled: set[tuple[str, str]]
    ) -> None:
        await fleet.one.cool(candidate("one", "large").deployment, scope, 5.0, "429")
        for key in ("one", "two"):
            for model in ("large", "small"):
                reply = await fleet.one.reserve([candidate(key, model)], 10)
                assert isinstance(reply, Refusal) == ((key, model) in cooled)


class TestChoice:
    async def test_the_earliest_start_wins(self, fleet: Fleet) -> None:
        busy, idle = candidate("busy", rpm=60), candidate("idle", rpm=60)
        await fleet.grant(busy)
        assert (await fleet.grant(busy, idle)).candidate == idle

    async def test_among_equals_the_first_wins(self, fleet: Fleet) -> None:
        assert (await fleet.grant(candidate("b"), candidate("a"))).candidate == candidate("b")

    async def test_a_full_one_never_hides_one_that_can_start_within_the_wait(self, fleet: Fleet) -> None:
        full, paced = candidate("full", most=1), candidate("paced", rpm=70)
        await fleet.grant(full)
        await fleet.grant(paced)
        chosen = await fleet.grant(full, paced)
        assert chosen.candidate == paced
        assert 0.1 < chosen.wait_s < 1

    async def test_a_cooled_one_never_hides_a_usable_one(self, fleet: Fleet) -> None:
        cooled, paced = candidate("cooled"), candidate("paced", rpm=70)
        await fleet.grant(paced)
        await fleet.one.cool(cooled.deployment, Scope.MODEL, 0.1, "429")
        assert (await fleet.grant(cooled, paced)).candidate == paced

    async def test_when_none_can_start_the_refusal_speaks_of_the_earliest(self, fleet: Fleet) -> None:
        await fleet.one.cool(candidate("one").deployment, Scope.MODEL, 30.0, "429")
        await fleet.one.cool(candidate("two").deployment, Scope.MODEL, 7.0, "429")
        refused = await fleet.refusal(candidate("one"), candidate("two"))
        assert refused.deployment.key == "two"
        assert refused.reason == "cooling after a refusal at alpha/large (account alpha:two)"


async def learned(fleet: Fleet, model: str = "large") -> float:
    return float(await fleet.redis.hget(keys.rate("alpha:main", model), "learned") or "nan")


class TestLearning:
    async def call_each(self, fleet: Fleet, every_ms: float, times: int) -> list[Grant]:
        grants = []
        await fleet.has_proven_itself()
        for _ in range(times):
            grants.append(await fleet.grant(candidate()))
            fleet.at_ms(fleet.ms + every_ms)
        return grants

    async def refuse(self, fleet: Fleet, grant: Grant, hint_s: float | None = None) -> None:
        await fleet.one.release(grant, 10, refused=True)
        await fleet.one.cool(candidate().deployment, Scope.MODEL, hint_s, "429", too_fast=True)

    @pytest.mark.parametrize("every_ms", [10.0, 100.0, 1000.0, 5000.0])
    async def test_a_refusal_paces_at_a_little_less_than_was_accepted(self, fleet: Fleet, every_ms: float) -> None:
        *_, last = await self.call_each(fleet, every_ms, max(round(20_000 / every_ms), 30))
        await self.refuse(fleet, last)
        assert await learned(fleet) == pytest.approx(0.98 * 60_000 / every_ms, rel=0.06)

    async def test_refused_calls_do_not_count_however_late_they_are_refused(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 50, 400)
        fleet.after_s(8)
        for refused in grants[1::2]:
            await self.refuse(fleet, refused)
        assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)

    async def test_it_grows_by_one_percent_a_second_from_the_cooldowns_end(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 100, 200)
        await self.refuse(fleet, grants[-1], hint_s=20.0)
        rate = await learned(fleet)
        fleet.after_s(20)
        assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate)
        fleet.after_s(10)
        assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate * 1.01**10, rel=0.001)

    async def test_a_rate_that_is_far_too_low_recovers_within_two_minutes(self, fleet: Fleet) -> None:
        await self.refuse(fleet, await fleet.grant(candidate()))
        await fleet.redis.hset(keys.rate("alpha:main", "large"), "learned", 1)
        for _ in range(240):
            fleet.after_s(0.5)
            reply = await fleet.one.reserve([candidate()], 10)
        assert isinstance(reply, Grant)
        assert 60_000 / reply.cost_ms > 600

    async def test_a_storm_that_accepts_nothing_halves_the_rate_once_a_cooldown(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 0, 50)
        for refused in grants:
            await self.refuse(fleet, refused)
        assert 60 <= await learned(fleet) <= 150

    async def test_without_any_evidence_the_rate_is_a_call_a_second(self, fleet: Fleet) -> None:
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429", too_fast=True)
        assert await learned(fleet) == 60
        fleet.after_s(2)
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429", too_fast=True)
        assert await learned(fleet) == pytest.approx(30)

    async def test_a_configured_limit_below_the_learned_one_stays(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 10, 2000)
        await self.refuse(fleet, grants[-1], hint_s=0.05)
        fleet.after_s(2)
        assert (await fleet.grant(candidate(rpm=120))).cost_ms == 500

    async def test_no_herd_after_a_short_cooldown(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 10, 2000)
        await self.refuse(fleet, grants[-1], hint_s=0.05)
        fleet.after_s(0.05)
        assert await fleet.grants_now(candidate()) <= 6

    @pytest.mark.parametrize(("hint_s", "at_first"), [(None, 2), (2.0, 30)])
    async def test_where_nobody_says_how_long_few_try_again_at_first(
        self, fleet: Fleet, hint_s: float | None, at_first: int
    ) -> None:
        grants = await self.call_each(fleet, 10, 2000)
        await self.refuse(fleet, grants[-1], hint_s=hint_s)
        fleet.after_s(2)
        again = [await fleet.one.reserve([candidate()], 10) for _ in range(30)]
        assert sum(isinstance(each, Grant) for each in again) == at_first

    async def test_more_try_again_when_nothing_was_refused_for_a_moment(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 10, 2000)
        await self.refuse(fleet, grants[-1])
        fleet.after_s(2)
        for _ in range(20):
            await fleet.one.reserve([candidate()], 10)
            fleet.after_s(0.1)
        again = [await fleet.one.reserve([candidate()], 10) for _ in range(30)]
        assert 10 <= sum(isinstance(each, Grant) for each in again)

    async def test_what_was_learned_outlives_a_long_cooldown(self, fleet: Fleet) -> None:
        grants = await self.call_each(fleet, 1000, 30)
        await self.refuse(fleet, grants[-1], hint_s=600.0)
        assert await fleet.redis.pttl(keys.rate("alpha:main", "large")) >= 600_000


class TestRefusedAtAKnownLimit:
    async def refused_after(self, fleet: Fleet, limited: Candidate, every_ms: float, calls: int) -> None:
        """So many calls, the last of which is refused with a hint of 50 ms."""
        for _ in range(calls):
            grant = await fleet.grant(limited)
            fleet.at_ms(fleet.ms + every_ms)
        await fleet.one.release(grant, None, refused=True)
        await fleet.one.cool(limited.deployment, Scope.MODEL, 0.05, "429", too_fast=True)

    async def test_a_call_that_came_a_little_too_soon_costs_a_fiftieth_for_two_seconds(self, fleet: Fleet) -> None:
        limited = candidate(rpm=60)
        await self.refused_after(fleet, limited, 1000.0, 20)
        assert await learned(fleet) == pytest.approx(0.98 * 60)
        fleet.after_s(3)
        assert (await fleet.grant(limited)).cost_ms == pytest.approx(1000)

    async def test_a_herd_of_such_refusals_is_one(self, fleet: Fleet) -> None:
        limited = candidate(rpm=600)
        await self.refused_after(fleet, limited, 100.0, 100)
        for _ in range(10):
            await fleet.one.cool(limited.deployment, Scope.MODEL, 0.05, "429", too_fast=True)
        assert await learned(fleet) == pytest.approx(0.98 * 600)

    async def test_a_limit_that_is_far_lower_than_configured_is_learned(self, fleet: Fleet) -> None:
        limited = candidate(rpm=6000)
        await self.refused_after(fleet, limited, 100.0, 100)
        assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)

    async def test_the_next_call_waits_for_the_hint_and_no_burst_follows(self, fleet: Fleet) -> None:
        limited = candidate(rpm=600)
        await self.refused_after(fleet, limited, 100.0, 100)
        fleet.after_s(0.06)
        assert (await fleet.grant(limited)).wait_s == 0
        assert (await fleet.grant(limited)).wait_s > 0.05

    async def test_where_only_tokens_have_a_limit_no_rate_of_requests_is_learned(self, fleet: Fleet) -> None:
        limited = candidate(tpm=60_000)
        await self.refused_after(fleet, limited, 100.0, 100)
        assert await fleet.redis.hget(keys.rate("alpha:main", "large"), "learned") is None
        fleet.after_s(1.1)
        waits = [(await fleet.grant(limited, tokens=400)).wait_s for _ in range(4)]
        assert waits[3] - waits[2] == pytest.approx(0.4 / 0.98, abs=0.001)
        fleet.after_s(20)
        waits = [(await fleet.grant(limited, tokens=400)).wait_s for _ in range(4)]
        assert waits[3] - waits[2] == pytest.approx(0.4, abs=0.001)

    async def test_tokens_of_a_refused_call_are_given_back(self, fleet: Fleet) -> None:
        limited = candidate(tpm=6000)
        await fleet.one.release(await fleet.grant(limited, tokens=1000), None, refused=True)
        assert (await fleet.grant(limited, tokens=100)).wait_s == 0


class TestSlowStart:
    """Answers take 300 ms."""

    async def in_flight(self, fleet: Fleet, jobs: int, seconds: float, latency_ms: float = 300.0) -> list[int]:
        """How many of `jobs` that ask every 50 ms are in flight, every 300 ms."""
        flying: list[tuple[float, Grant]] = []
        seen = []
        for step in range(round(seconds * 20)):
            for end_ms, grant in list(flying):
                if end_ms <= fleet.ms:
                    flying.remove((end_ms, grant))
                    await fleet.one.release(grant, 10)
            while len(flying) < jobs and isinstance(reply := await fleet.one.reserve([candidate()], 10), Grant):
                flying.append((fleet.ms + latency_ms, reply))
            seen.append(len(flying))
            fleet.at_ms((step + 1) * 50.0)
        return seen[::6]

    async def test_calls_in_flight_about_triple_with_each_round_of_answers(self, fleet: Fleet) -> None:
        first, second, third, *_, last = await self.in_flight(fleet, 300, 1.5)
        assert (first, second, third) == (2, 5, 15)
        assert 162 <= last <= 300

    async def test_a_thousand_slots_are_in_use_within_seconds_though_answers_take_long(self, fleet: Fleet) -> None:
        seen = await self.in_flight(fleet, 1000, 5.5, latency_ms=60_000.0)
        assert seen[:4] == [2, 3, 4, 6]
        assert seen[-1] == 1000

    async def test_a_trickle_of_answers_opens_no_door_for_a_herd(self, fleet: Fleet) -> None:
        for _ in range(100):
            await fleet.one.release(await fleet.grant(candidate()), 10)
            fleet.after_s(3)
        assert await fleet.grants_now(candidate()) <= 12

    async def test_a_job_that_must_wait_for_it_is_told_a_start_soon(self, fleet: Fleet) -> None:
        for _ in range(2):
            await fleet.grant(candidate())
        refused = await fleet.refusal(candidate())
        assert refused.hold is Hold.STARTING
        assert refused.until == pytest.approx(BEGIN_MS / 1000 + 0.1)

    @pytest.mark.parametrize("limits", [{"rpm": 6000}, {"tpm": 6_000_000}])
    async def test_a_configured_limit_needs_none(self, fleet: Fleet, limits: dict[str, int]) -> None:
        assert await fleet.grants_now(candidate(**limits)) == 100 if "rpm" in limits else 10_000

    async def test_a_limit_that_headers_tell_ends_it(self, fleet: Fleet) -> None:
        await fleet.grant(candidate())
        await fleet.one.told(candidate().deployment, LimitSignals(requests_limit=6000.0))
        fleet.after_s(1.2)
        assert 97 <= await fleet.grants_now(candidate()) <= 99

    async def test_a_refusal_ends_it(self, fleet: Fleet) -> None:
        await fleet.one.release(await fleet.grant(candidate()), 10, refused=True)
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 0.05, "429", too_fast=True)
        fleet.after_s(3)
        await fleet.grant(candidate())
        assert (await fleet.grant(candidate())).cost_ms > 900
        assert (await fleet.refusal(candidate())).hold is Hold.REQUESTS

    async def test_the_outlook_promises_what_can_start_within_a_second(self, fleet: Fleet) -> None:
        (seen,) = await fleet.one.outlook([candidate()], 2.0)
        assert 4 <= seen.starts <= 8


class TestOutlook:
    @EXAMPLES
    @given(
        st.sampled_from([None, 7, 60, 600]),
        st.sampled_from([None, 500, 60_000]),
        st.integers(0, 20),
        st.floats(0, 2500),
        st.sampled_from([0.5, 2.0]),
    )
    def test_it_never_promises_more_starts_than_reservations_get(
        self, rpm: int | None, tpm: int | None, earlier: int, gap: float, horizon_s: float
    ) -> None:
        async def story(fleet: Fleet) -> tuple[int, int]:
            paced, started = candidate(rpm=rpm, tpm=tpm), 0
            for _ in range(earlier):
                await fleet.one.reserve([paced], 100)
            fleet.at_ms(gap)
            (seen,) = await fleet.one.outlook([paced], horizon_s, 100)
            end_ms = fleet.ms + horizon_s * 1000
            while fleet.ms <= end_ms + 1:
                reply = await fleet.one.reserve([paced], 100)
                if isinstance(reply, Grant) and fleet.ms + reply.wait_s * 1000 <= end_ms + 1:
                    started += 1
                elif isinstance(reply, Grant):
                    break
                else:
                    fleet.at_ms(max(fleet.ms + 0.01, reply.until * 1000 - BEGIN_MS))
                if started > 200:
                    return NO_LIMIT, NO_LIMIT
            return seen.starts, started

        promised, started = simulated(story)
        assert promised <= started

    async def test_a_full_deployment_is_expected_to_end_a_quarter_of_its_calls(self, fleet: Fleet) -> None:
        limited = candidate(most=8)
        await fleet.has_proven_itself()
        assert await fleet.one.outlook([limited], 2.0) == [Outlook(10, None, Hold.IN_FLIGHT)]
        for _ in range(8):
            await fleet.grant(limited)
        assert await fleet.one.outlook([limited], 2.0) == [Outlook(2, None, Hold.IN_FLIGHT)]

    async def test_it_names_cooldowns_and_counts_only_probes_when_half_open(self, fleet: Fleet) -> None:
        for length in (2, 4):
            await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
            assert (await fleet.one.outlook([candidate()], 2.0))[0].cooled_for_s == length
            fleet.after_s(length)
        assert await fleet.one.outlook([candidate()], 2.0) == [Outlook(2, None, Hold.COOLDOWN)]

    async def test_it_says_what_holds_and_until_when(self, fleet: Fleet) -> None:
        paced = candidate(rpm=6)
        await fleet.grant(paced)
        now = (BEGIN_MS + fleet.ms) / 1000
        (seen,) = await fleet.one.outlook([paced], 2.0)
        assert (seen.starts, seen.hold, seen.first_at) == (0, Hold.REQUESTS, pytest.approx(now + 10))
        (spent,) = await fleet.one.outlook([candidate(tpm=60)], 2.0, tokens=100_000)
        assert (spent.starts, spent.hold) == (1, Hold.TOKENS)
        await fleet.one.cool(paced.deployment, Scope.PROVIDER, 30.0, "529")
        (seen,) = await fleet.one.outlook([paced], 2.0)
        assert (seen.hold, seen.first_at) == (Hold.BREAKER, pytest.approx(now + 30))

    async def test_without_a_limit_a_deployment_that_has_proven_itself_has_none(self, fleet: Fleet) -> None:
        await fleet.has_proven_itself()
        assert await fleet.one.outlook([candidate()], 2.0, 100) == [Outlook(NO_LIMIT, None)]


async def test_every_key_expires(fleet: Fleet) -> None:
    limited = candidate(rpm=60, tpm=6000, most=3)
    grant = await fleet.grant(limited)
    await fleet.one.release(grant, 500, refused=True)
    for scope in Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER:
        await fleet.one.cool(limited.deployment, scope, None, "429", too_fast=True)
    await fleet.one.beat({("alpha:main", "large"): 0})
    written: list[Any] = await fleet.redis.keys("*")
    assert len(written) == 5
    assert all([await fleet.redis.pttl(key) > 0 for key in written])


async def test_a_grant_is_not_early_by_rounding(fleet: Fleet) -> None:
    paced = candidate(rpm=70)
    await fleet.grant(paced)
    assert (await fleet.grant(paced)).wait_s * 1000 >= 2 * 60_000 / 70 - 1000
