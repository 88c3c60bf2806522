"""The schedule of requests over a fake Redis: no window starts more than its share, and booking ahead is bounded."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limiter_fleet import EXAMPLES, Fleet, candidate, moment, simulated, worst_excess

from understudy.worker.limits.grants import BULK, URGENT, Grant, Hold

gaps_ms = st.lists(st.one_of(st.just(0.0), st.floats(0, 3000)), min_size=1, max_size=60)


@EXAMPLES
@given(gaps_ms, st.sampled_from([1, 7, 60, 90, 600, 3000]), st.data())
def test_no_window_starts_more_than_its_share_and_one_second_of_burst(
    gaps: list[float], rpm: int, data: st.DataObject
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
def test_cancelled_calls_never_let_a_window_start_more(gaps: list[float], rpm: int, data: st.DataObject) -> None:
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


async def test_a_refusal_says_when_our_own_pacing_lets_a_start_be_booked(fleet: Fleet) -> None:
    paced = candidate(rpm=20)
    await fleet.grant(paced)
    refused = await fleet.refusal(paced)
    assert refused.hold is Hold.REQUESTS
    assert refused.until == moment(3 - 0.5)
    fleet.after_s(2.5)
    assert (await fleet.grant(paced)).wait_s == pytest.approx(0.5)


async def test_a_cancelled_call_gives_everything_back(fleet: Fleet) -> None:
    limited = candidate(rpm=60, tpm=600, most=1)
    await fleet.one.cancel(await fleet.grant(limited, tokens=10))
    assert (await fleet.grant(limited, tokens=10)).wait_s == 0


async def test_a_share_of_the_schedule_that_went_by_is_not_given_back(fleet: Fleet) -> None:
    paced = candidate(rpm=90)
    first = await fleet.grant(paced)
    await fleet.grant(paced)
    fleet.at_ms(1100)
    await fleet.grant(paced)
    await fleet.grant(paced)
    await fleet.one.cancel(first)
    await fleet.refusal(paced)


async def test_a_cancelled_call_at_a_learned_rate_gives_it_back(fleet: Fleet) -> None:
    for _ in range(3):
        await fleet.refuse(await fleet.next_call(candidate()))
    fleet.after_s(5)
    paced = await fleet.grant(candidate())
    assert paced.cost_ms > 0
    await fleet.one.cancel(paced)
    assert (await fleet.grant(candidate())).wait_s == 0


async def test_bulk_leaves_room_before_it_for_who_is_urgent(fleet: Fleet) -> None:
    paced = candidate(rpm=600)
    while isinstance(await fleet.one.reserve([paced], 10, BULK), Grant):
        pass
    urgent = await fleet.one.reserve([paced], 10, URGENT)
    assert isinstance(urgent, Grant)
    assert 0.5 < urgent.wait_s <= 0.7


@pytest.mark.parametrize("rpm", [20, 60, 100])
async def test_a_slow_limit_has_its_next_call_booked_and_who_is_urgent_finds_the_one_after(
    fleet: Fleet, rpm: int
) -> None:
    paced, cost_s = candidate(rpm=rpm), 60 / rpm
    waits = []
    while isinstance(reply := await fleet.one.reserve([paced], 10, BULK), Grant):
        waits.append(reply.wait_s)
    assert waits[-1] <= 2.0
    assert (len(waits) >= 2) == (cost_s <= 2.0)
    if cost_s <= 2.0:
        assert isinstance(await fleet.one.reserve([paced], 10, URGENT), Grant)


async def test_a_refused_job_asks_again_before_the_start_that_is_free(fleet: Fleet) -> None:
    paced = candidate(rpm=600)
    while isinstance(reply := await fleet.one.reserve([paced], 10, BULK), Grant):
        last = reply.wait_s
    assert reply.until == moment(last + 0.1 - 0.25)


async def test_a_call_that_began_late_delays_the_next_at_a_slow_limit(fleet: Fleet) -> None:
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


async def test_a_grant_is_not_early_by_rounding(fleet: Fleet) -> None:
    paced = candidate(rpm=70)
    await fleet.grant(paced)
    assert (await fleet.grant(paced)).wait_s * 1000 >= 2 * 60_000 / 70 - 1000
