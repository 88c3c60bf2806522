"""A task that swallows its cancellation still ends."""

import asyncio

from understudy.models.cancellation import end, end_if_cancelled, is_being_ended


async def swallows_once(swallowed: asyncio.Event) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if swallowed.is_set():
                raise
            swallowed.set()


async def test_a_task_that_swallows_its_cancellation_is_asked_again() -> None:
    swallowed = asyncio.Event()
    task = asyncio.create_task(swallows_once(swallowed))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end([task])
    assert swallowed.is_set() and task.cancelled()


async def test_a_task_can_tell_that_it_was_cancelled_although_that_was_swallowed() -> None:
    seen: list[bool] = []

    async def loop() -> None:
        while not is_being_ended():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append(is_being_ended())

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await task
    assert seen == [True]


async def test_a_swallowed_cancellation_is_raised_where_the_task_asks_for_it() -> None:
    async def once() -> None:
        end_if_cancelled()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        end_if_cancelled()

    task = asyncio.create_task(once())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
