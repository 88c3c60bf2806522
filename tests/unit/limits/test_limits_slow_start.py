"""Slow start over a fake Redis: how many calls may be in flight while no limit is known. Answers take 300 ms."""

import pytest
from limiter_fleet import BEGIN_MS, Fleet, candidate, moment

from understudy.models.queue import keys
from understudy.worker.failures import LimitSignals
from understudy.worker.limits.grants import Grant, Hold


async def in_flight(fleet: Fleet, jobs: int, seconds: float, latency_ms: float = 300.0) -> list[int]:
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


async def test_calls_in_flight_about_triple_with_each_round_of_answers(fleet: Fleet) -> None:
    first, second, third, *_, last = await in_flight(fleet, 300, 1.5)
    assert (first, second, third) == (2, 5, 15)
    assert 162 <= last <= 300


async def test_a_thousand_slots_are_in_use_within_seconds_though_answers_take_long(fleet: Fleet) -> None:
    seen = await in_flight(fleet, 1000, 5.5, latency_ms=60_000.0)
    assert seen[:4] == [2, 3, 4, 6]
    assert seen[-1] == 1000


async def test_a_trickle_of_answers_opens_no_door_for_a_herd(fleet: Fleet) -> None:
    for _ in range(100):
        await fleet.one.release(await fleet.grant(candidate()), 10)
        fleet.after_s(3)
    assert await fleet.grants_now(candidate()) <= 12


async def test_a_job_that_must_wait_for_it_is_told_a_start_soon(fleet: Fleet) -> None:
    for _ in range(2):
        await fleet.grant(candidate())
    refused = await fleet.refusal(candidate())
    assert refused.hold is Hold.STARTING
    assert refused.until == moment(0.1)


@pytest.mark.parametrize("limits", [{"rpm": 6000}, {"tpm": 6_000_000}])
async def test_a_configured_limit_needs_none(fleet: Fleet, limits: dict[str, int]) -> None:
    assert await fleet.grants_now(candidate(**limits), tokens=1000) == 100


async def test_a_limit_that_headers_tell_ends_it(fleet: Fleet) -> None:
    await fleet.grant(candidate())
    await fleet.one.advertised(candidate().deployment, LimitSignals(requests_limit=6000.0))
    fleet.after_s(1.2)
    assert 97 <= await fleet.grants_now(candidate()) <= 99


async def test_refusals_of_more_than_three_tenths_pace_it_at_twenty_calls_a_second(fleet: Fleet) -> None:
    for _ in range(3):
        await fleet.refuse(await fleet.next_call(candidate()))
    assert (await fleet.next_call(candidate())).cost_ms == 50


async def test_refusals_of_less_than_three_tenths_leave_it_as_it_is(fleet: Fleet) -> None:
    for number in range(30):
        call = await fleet.next_call(candidate())
        if number in (10, 17, 24):
            assert await fleet.refuse(call) is None
        else:
            await fleet.one.release(call, 10)
    assert (await fleet.grant(candidate())).cost_ms == 0
    while isinstance(reply := await fleet.one.reserve([candidate()], 10), Grant):
        pass
    assert reply.hold is Hold.STARTING


async def test_a_rest_without_a_hint_starts_it_over(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    for refused in [await fleet.grant(candidate()) for _ in range(30)]:
        await fleet.refuse(refused)
    fleet.after_s(2)
    for _ in range(2):
        await fleet.grant(candidate())
    assert (await fleet.refusal(candidate())).hold is Hold.STARTING


async def test_a_rate_that_is_learned_behind_hints_ends_it(fleet: Fleet) -> None:
    for _ in range(100):
        await fleet.one.release(await fleet.next_call(candidate()), 10)
        fleet.after_s(1)
    end = await fleet.refuse_until_hints_are_doubted(candidate(), 0.05)
    fleet.at_ms(end * 1000 - BEGIN_MS)
    assert not await fleet.redis.hexists(keys.rate("alpha:main", "large"), "window")
    for _ in range(2):
        assert (await fleet.next_call(candidate())).cost_ms > 900
    assert (await fleet.refusal(candidate())).hold is Hold.REQUESTS


async def test_the_outlook_promises_what_can_start_within_a_second(fleet: Fleet) -> None:
    (seen,) = await fleet.one.outlook([candidate()], 2.0)
    assert 4 <= seen.starts <= 8
