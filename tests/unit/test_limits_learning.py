"""What a rate limit teaches over a fake Redis: the rate that was accepted, where none or a wrong one is known."""

import pytest
from limiter_fleet import Fleet, candidate, moment

from models import keys
from models.failure import Scope
from worker.limits import Candidate, Grant, Hold


async def learned(fleet: Fleet, model: str = "large") -> float:
    return float(await fleet.redis.hget(keys.rate("alpha:main", model), "learned") or "nan")


async def call_each(fleet: Fleet, every_ms: float, times: int) -> list[Grant]:
    grants = []
    await fleet.has_proven_itself()
    for _ in range(times):
        grants.append(await fleet.grant(candidate()))
        fleet.at_ms(fleet.ms + every_ms)
    return grants


async def refuse(fleet: Fleet, grant: Grant, hint_s: float | None = None) -> None:
    await fleet.one.release(grant, 10, refused=True)
    await fleet.one.cool(candidate().deployment, Scope.MODEL, hint_s, "429", too_fast=True)


@pytest.mark.parametrize("every_ms", [pytest.param(10.0, marks=pytest.mark.slow), 100.0, 1000.0, 5000.0])
async def test_a_refusal_paces_at_a_little_less_than_was_accepted(fleet: Fleet, every_ms: float) -> None:
    *_, last = await call_each(fleet, every_ms, max(round(20_000 / every_ms), 30))
    await refuse(fleet, last)
    assert await learned(fleet) == pytest.approx(0.98 * 60_000 / every_ms, rel=0.06)


async def test_refused_calls_do_not_count_however_late_they_are_refused(fleet: Fleet) -> None:
    grants = await call_each(fleet, 50, 400)
    fleet.after_s(8)
    for refused in grants[1::2]:
        await refuse(fleet, refused)
    assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)


async def test_it_grows_by_one_percent_a_second_from_the_cooldowns_end(fleet: Fleet) -> None:
    grants = await call_each(fleet, 100, 200)
    await refuse(fleet, grants[-1], hint_s=20.0)
    rate = await learned(fleet)
    fleet.after_s(20)
    assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate)
    fleet.after_s(10)
    assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate * 1.01**10, rel=0.001)


async def test_a_rate_that_is_far_too_low_recovers_within_two_minutes(fleet: Fleet) -> None:
    await refuse(fleet, await fleet.grant(candidate()))
    await fleet.redis.hset(keys.rate("alpha:main", "large"), "learned", 1)
    for _ in range(240):
        fleet.after_s(0.5)
        reply = await fleet.one.reserve([candidate()], 10)
    assert isinstance(reply, Grant)
    assert 60_000 / reply.cost_ms > 600


async def test_a_storm_that_accepts_nothing_halves_the_rate_once_a_cooldown(fleet: Fleet) -> None:
    grants = await call_each(fleet, 0, 50)
    for refused in grants:
        await refuse(fleet, refused)
    assert 60 <= await learned(fleet) <= 150


async def test_without_any_evidence_the_rate_is_a_call_a_second(fleet: Fleet) -> None:
    await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429", too_fast=True)
    assert await learned(fleet) == 60
    fleet.after_s(2)
    await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429", too_fast=True)
    assert await learned(fleet) == pytest.approx(30)


@pytest.mark.slow
async def test_a_configured_limit_below_the_learned_one_stays(fleet: Fleet) -> None:
    grants = await call_each(fleet, 10, 2000)
    await refuse(fleet, grants[-1], hint_s=0.05)
    fleet.after_s(2)
    assert (await fleet.grant(candidate(rpm=120))).cost_ms == 500


@pytest.mark.slow
async def test_no_herd_after_a_short_cooldown(fleet: Fleet) -> None:
    grants = await call_each(fleet, 10, 2000)
    await refuse(fleet, grants[-1], hint_s=0.05)
    fleet.after_s(0.05)
    assert await fleet.grants_now(candidate()) <= 6


@pytest.mark.parametrize(("hint_s", "at_first"), [(None, 2), (2.0, 30)])
@pytest.mark.slow
async def test_where_nobody_says_how_long_few_try_again_at_first(
    fleet: Fleet, hint_s: float | None, at_first: int
) -> None:
    grants = await call_each(fleet, 10, 2000)
    await refuse(fleet, grants[-1], hint_s=hint_s)
    fleet.after_s(2)
    again = [await fleet.one.reserve([candidate()], 10) for _ in range(30)]
    assert sum(isinstance(each, Grant) for each in again) == at_first


@pytest.mark.slow
async def test_more_try_again_when_nothing_was_refused_for_a_moment(fleet: Fleet) -> None:
    grants = await call_each(fleet, 10, 2000)
    await refuse(fleet, grants[-1])
    fleet.after_s(2)
    for _ in range(20):
        await fleet.one.reserve([candidate()], 10)
        fleet.after_s(0.1)
    again = [await fleet.one.reserve([candidate()], 10) for _ in range(30)]
    assert 10 <= sum(isinstance(each, Grant) for each in again)


async def test_what_was_learned_outlives_a_long_cooldown(fleet: Fleet) -> None:
    grants = await call_each(fleet, 1000, 30)
    await refuse(fleet, grants[-1], hint_s=600.0)
    assert await fleet.redis.pttl(keys.rate("alpha:main", "large")) >= 600_000


async def refused_after(fleet: Fleet, limited: Candidate, every_ms: float, calls: int) -> None:
    """So many calls, the last of which is refused with a hint of 50 ms."""
    for _ in range(calls):
        grant = await fleet.grant(limited)
        fleet.at_ms(fleet.ms + every_ms)
    await fleet.one.release(grant, None, refused=True)
    await fleet.one.cool(limited.deployment, Scope.MODEL, 0.05, "429", too_fast=True)


async def test_a_call_that_came_a_little_too_soon_costs_a_fiftieth_for_two_seconds(fleet: Fleet) -> None:
    limited = candidate(rpm=60)
    await refused_after(fleet, limited, 1000.0, 20)
    assert await learned(fleet) == pytest.approx(0.98 * 60)
    fleet.after_s(3)
    assert (await fleet.grant(limited)).cost_ms == pytest.approx(1000)


async def test_a_herd_of_such_refusals_is_one(fleet: Fleet) -> None:
    limited = candidate(rpm=600)
    await refused_after(fleet, limited, 100.0, 100)
    for _ in range(10):
        await fleet.one.cool(limited.deployment, Scope.MODEL, 0.05, "429", too_fast=True)
    assert await learned(fleet) == pytest.approx(0.98 * 600)


async def test_a_limit_that_is_far_lower_than_configured_is_learned(fleet: Fleet) -> None:
    limited = candidate(rpm=6000)
    await refused_after(fleet, limited, 100.0, 100)
    assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)


async def test_the_next_call_waits_for_the_hint_and_no_burst_follows(fleet: Fleet) -> None:
    limited = candidate(rpm=600)
    await refused_after(fleet, limited, 100.0, 100)
    fleet.after_s(0.06)
    assert (await fleet.grant(limited)).wait_s == 0
    assert (await fleet.grant(limited)).wait_s > 0.05


async def test_where_only_tokens_have_a_limit_no_rate_of_requests_is_learned(fleet: Fleet) -> None:
    limited = candidate(tpm=60_000)
    await refused_after(fleet, limited, 100.0, 100)
    assert await fleet.redis.hget(keys.rate("alpha:main", "large"), "learned") is None
    fleet.after_s(1.1)
    waits = [(await fleet.grant(limited, tokens=400)).wait_s for _ in range(4)]
    assert waits[3] - waits[2] == pytest.approx(0.4 / 0.98, abs=0.001)
    fleet.after_s(20)
    waits = [(await fleet.grant(limited, tokens=400)).wait_s for _ in range(4)]
    assert waits[3] - waits[2] == pytest.approx(0.4, abs=0.001)


async def test_tokens_of_a_refused_call_are_given_back(fleet: Fleet) -> None:
    limited = candidate(tpm=6000)
    await fleet.one.release(await fleet.grant(limited, tokens=1000), None, refused=True)
    assert (await fleet.grant(limited, tokens=100)).wait_s == 0


async def test_who_is_held_by_a_learned_rate_is_told_since_when(fleet: Fleet) -> None:
    grants = await call_each(fleet, 100, 200)
    taught = fleet.ms / 1000
    await refuse(fleet, grants[-1], hint_s=1.0)
    for _ in range(10):
        fleet.after_s(2)
        while isinstance(reply := await fleet.one.reserve([candidate()], 10), Grant):
            await fleet.one.release(reply, 10)
        assert (reply.hold, reply.since) == (Hold.REQUESTS, moment(taught))
        (seen,) = await fleet.one.outlook([candidate()], 1.0)
        assert seen.paced_for_s == pytest.approx(fleet.ms / 1000 - taught, abs=0.002)


async def test_who_is_held_by_a_configured_rate_is_not(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    limited = candidate(rpm=120)
    while isinstance(reply := await fleet.one.reserve([limited], 10), Grant):
        await fleet.one.release(reply, 10)
    assert (reply.hold, reply.since) == (Hold.REQUESTS, None)
    (seen,) = await fleet.one.outlook([limited], 1.0)
    assert seen.paced_for_s is None
