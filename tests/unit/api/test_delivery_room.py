"""Room for unread answers: a tenant with too many of them waits, and delays no other tenant."""

import asyncio
from collections import Counter
from random import Random

import pytest

from understudy.producer.api.files.delivery_room import DeliveryRoom, NoRoom


def room(always_one: bool = True) -> DeliveryRoom:
    return DeliveryRoom(100, 40, always_one=always_one)


async def soon(taking: "asyncio.Task[None]") -> bool:
    """Whether it found room, once every task has had a turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return taking.done()


async def test_a_tenant_has_its_share_and_its_next_reader_waits_until_something_was_taken() -> None:
    shared = room()
    for _ in range(2):
        await shared.take("acme", 20, 0)
    waits = asyncio.create_task(shared.take("acme", 10, None))
    assert not await soon(waits)
    await shared.take("other", 40, 0)
    shared.give("acme", 20)
    assert await soon(waits) and shared.taken == 70


async def test_a_request_that_waited_without_success_is_told_so_and_forgotten() -> None:
    shared = room()
    await shared.take("acme", 40, 0)
    for _ in range(3):
        with pytest.raises(NoRoom):
            await shared.take("acme", 10, 0.01)
    shared.give("acme", 40)
    assert shared.taken == 0
    await shared.take("acme", 40, 0)


async def test_when_all_of_it_is_taken_each_tenant_still_gets_one_page() -> None:
    shared = room()
    for tenant in "abc":
        await shared.take(tenant, 33, 0)
    await shared.take("d", 400, 0)
    with pytest.raises(NoRoom):
        await shared.take("d", 1, 0.01)


async def test_in_memory_nothing_is_let_in_beyond_what_there_is_but_one_that_is_alone() -> None:
    shared = room(always_one=False)
    await shared.take("a", 400, 0)
    with pytest.raises(NoRoom):
        await shared.take("b", 1, 0.01)
    shared.give("a", 400)
    for tenant in "abc":
        await shared.take(tenant, 33, 0)
    with pytest.raises(NoRoom):
        await shared.take("d", 2, 0.01)


async def test_a_page_that_was_longer_than_said_keeps_others_waiting() -> None:
    shared = room()
    await shared.take("acme", 1, 0)
    shared.grow("acme", 39)
    waits = asyncio.create_task(shared.take("acme", 10, None))
    assert not await soon(waits)
    shared.give("acme", 40)
    assert await soon(waits)


async def test_requests_that_leave_while_they_wait_keep_nothing_and_delay_no_other() -> None:
    shared, rng = room(), Random(7)
    held: Counter[str] = Counter()
    served = 0

    async def use(tenant: str, size: int) -> None:
        nonlocal served
        await shared.take(tenant, size, None)
        try:
            held[tenant] += size
            assert held[tenant] <= max(40, size)
            assert held.total() <= 100 or len(held) > 1
            await asyncio.sleep(0)
        finally:
            held[tenant] -= size
            shared.give(tenant, size)
        served += 1

    async def leave(tenant: str, size: int) -> None:
        task = asyncio.create_task(use(tenant, size))
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        task.cancel()

    people = [(use, leave)[number % 2] for number in range(400)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(each(rng.choice("abc"), rng.choice((1, 10, 30, 60))) for each in people))
        while shared.taken:
            await asyncio.sleep(0)
    assert served >= 200 and not shared._waiting
