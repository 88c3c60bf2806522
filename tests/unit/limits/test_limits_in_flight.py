"""Calls in flight over a fake Redis: counted for each worker, and ended with its lease."""

import asyncio
from collections.abc import Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from limiter_fleet import EXAMPLES, Fleet, candidate, simulated

from understudy.models.queue import keys
from understudy.worker.limits.grants import Grant, Hold, Refusal


def calls_of(held: Sequence[Grant | Refusal]) -> list[tuple[str, str]]:
    return [("alpha:main", "large")] * len(held)


@EXAMPLES
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["reserve", "release", "cancel", "beat"])), max_size=60))
def test_the_fleet_never_has_more_in_flight_than_the_limit(acts: list[tuple[int, str]]) -> None:
    async def story(fleet: Fleet) -> None:
        held: list[list[Grant]] = [[], [], []]
        limited = candidate(rpm=6000, most=4)
        for worker, own in zip(fleet.workers, held, strict=True):
            worker.count(partial(calls_of, own))
        for number, act in acts:
            worker, own = fleet.workers[number], held[number]
            if act == "beat":
                await fleet.leases[number].beat()
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


async def test_calls_of_a_dead_worker_end_with_its_lease() -> None:
    fleet, limited = Fleet(2), candidate(most=1)
    await fleet.workers[1].reserve([limited], 10)
    fleet.after_s(14)
    assert (await fleet.refusal(limited)).hold is Hold.IN_FLIGHT
    fleet.after_s(2)
    await fleet.grant(limited)
    await fleet.redis.aclose()


async def test_a_beat_renews_the_lease() -> None:
    fleet, limited = Fleet(2), candidate(most=1)
    fleet.workers[1].count(partial(calls_of, [await fleet.workers[1].reserve([limited], 10)]))
    fleet.after_s(10)
    await fleet.leases[1].beat()
    fleet.after_s(10)
    assert (await fleet.refusal(limited)).hold is Hold.IN_FLIGHT
    await fleet.redis.aclose()


async def test_a_heartbeat_corrects_a_count_whose_release_was_lost(fleet: Fleet) -> None:
    limited = candidate(most=1)
    await fleet.grant(limited)
    await fleet.leases[0].beat()
    await fleet.grant(limited)


async def test_a_beat_counts_the_reservations_that_it_met_under_way(fleet: Fleet) -> None:
    limited = candidate(most=1)
    held: list[Grant] = []
    fleet.one.count(partial(calls_of, held))

    async def reserve() -> None:
        held.append(await fleet.grant(limited))

    reserving = asyncio.create_task(reserve())
    await asyncio.sleep(0)
    await fleet.leases[0].beat()
    await reserving
    assert (await fleet.refusal(limited)).hold is Hold.IN_FLIGHT


async def test_a_full_deployment_stays_full_while_its_pacing_waits_longer(fleet: Fleet) -> None:
    limited = candidate(rpm=75, most=1)
    await fleet.grant(limited)
    await fleet.refusal(limited)


async def test_fields_of_workers_long_dead_are_forgotten() -> None:
    fleet, flight = Fleet(2), keys.flight("alpha:main", "large")
    await fleet.workers[1].reserve([candidate()], 10)
    fleet.after_s(400)
    fleet.one.count(lambda: [("alpha:main", "large")])
    await fleet.leases[0].beat()
    assert await fleet.redis.hkeys(flight) == [b"w:w0"]
    await fleet.redis.aclose()
