"""Room in memory: no more is taken than there is, in the order of requests, and no one is forgotten."""

import asyncio
from random import Random

from understudy.models.memory_room import Headroom


async def test_no_more_is_taken_than_there_is_and_all_are_served() -> None:
    room, rng = Headroom(100), Random(7)
    taken: list[int] = []
    most = served = 0

    async def use(size: int) -> None:
        nonlocal most, served
        async with room.of(size):
            taken.append(size)
            most = max(most, sum(taken) if len(taken) > 1 else 0)
            await asyncio.sleep(0)
            taken.remove(size)
        served += 1

    await asyncio.gather(*(use(rng.choice((1, 20, 60, 100, 400))) for _ in range(300)))
    assert served == 300 and most <= 100


async def test_who_asks_for_more_than_there_is_comes_when_it_is_alone() -> None:
    room = Headroom(100)
    await room.take(10)
    large = asyncio.create_task(room.take(500))
    small = asyncio.create_task(room.take(10))
    await asyncio.sleep(0)
    assert not large.done() and not small.done()  # it is not overtaken forever
    room.give(10)
    await large
    assert not small.done()
    room.give(500)
    await small


async def test_a_waiter_that_leaves_keeps_no_other_waiting() -> None:
    room = Headroom(100)
    await room.take(100)
    first, second = asyncio.create_task(room.take(100)), asyncio.create_task(room.take(100))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    room.give(100)
    await asyncio.wait_for(second, 5)


async def test_who_is_let_in_and_goes_away_at_the_same_moment_takes_nothing_along() -> None:
    room = Headroom(100)
    await room.take(100)
    waiting = asyncio.create_task(room.take(100))
    await asyncio.sleep(0)
    room.give(100)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(room.take(100), 5)
