"""Requests that are made together are handled together."""

import asyncio
import io
import logging
from collections.abc import Sequence

import pytest

from understudy.models.config.settings import LogSettings
from understudy.models.logs import about, log_handler
from understudy.worker.concurrency import Coalescer


class Recorder:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def double(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        return [item * 2 for item in items]


async def test_requests_of_one_moment_become_one_and_each_gets_its_own_answer() -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.double, max_items=100, max_delay_s=0.0)
    assert await asyncio.gather(*(coalescer.add(number) for number in range(50))) == [n * 2 for n in range(50)]
    assert recorder.batches == [list(range(50))]


async def test_a_full_batch_leaves_at_once() -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.double, max_items=10, max_delay_s=60.0)
    async with asyncio.timeout(5):
        await asyncio.gather(*(coalescer.add(number) for number in range(20)))
    assert [len(batch) for batch in recorder.batches] == [10, 10]


async def test_an_error_reaches_every_waiter_of_its_batch_and_no_other() -> None:
    async def refuse_sevens(items: Sequence[int]) -> list[int]:
        if 7 in items:
            raise ValueError("seven")
        return list(items)

    coalescer = Coalescer(refuse_sevens, max_items=2, max_delay_s=0.0)
    results = await asyncio.gather(*(coalescer.add(number) for number in (1, 2, 7, 8)), return_exceptions=True)
    assert results[:2] == [1, 2]
    assert all(isinstance(result, ValueError) for result in results[2:])


async def test_a_cancelled_waiter_disturbs_no_other_and_its_item_is_handled() -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.double, max_items=10, max_delay_s=0.05)
    first, second = asyncio.create_task(coalescer.add(1)), asyncio.create_task(coalescer.add(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 4
    with pytest.raises(asyncio.CancelledError):
        await first
    assert recorder.batches == [[1, 2]]


async def test_closing_handles_what_waits() -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.double, max_items=10, max_delay_s=60.0)
    waiter = asyncio.create_task(coalescer.add(21))
    await asyncio.sleep(0)
    await coalescer.close()
    assert await waiter == 42


async def test_the_number_under_way_is_bounded_and_what_waits_grows_into_whole_batches() -> None:
    under_way, most, sizes = 0, 0, list[int]()

    async def slow(items: Sequence[int]) -> list[int]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        sizes.append(len(items))
        await asyncio.sleep(0.01)
        under_way -= 1
        return list(items)

    async def one_after_the_other(coalescer: Coalescer[int, int]) -> list[int]:
        waits = []
        for number in range(60):
            waits.append(asyncio.create_task(coalescer.add(number)))
            await asyncio.sleep(0)  # each in its own turn of the loop, so that only the bound gathers them
        return await asyncio.gather(*waits)

    coalescer = Coalescer(slow, max_items=10, max_delay_s=0.0, at_once=2)
    assert await one_after_the_other(coalescer) == list(range(60))
    assert most == 2
    assert max(sizes) == 10
    assert sum(sizes) == 60


async def test_abandoned_items_are_not_handled_and_no_one_waits_for_them() -> None:
    begun: list[int] = []

    async def never(items: Sequence[int]) -> list[int]:
        begun.extend(items)
        await asyncio.Event().wait()
        return list(items)

    coalescer = Coalescer(never, max_items=1, max_delay_s=0.0, at_once=1)
    waiters = [asyncio.create_task(coalescer.add(number)) for number in (1, 2)]
    async with asyncio.timeout(5):
        while not begun:
            await asyncio.sleep(0)
        coalescer.abandon()
        await asyncio.wait(waiters)
        await coalescer.close()
    assert all(waiter.cancelled() for waiter in waiters)
    assert begun == [1]


async def test_what_is_logged_of_many_is_not_about_the_one_that_came_first() -> None:
    async def handle(items: Sequence[int]) -> list[int]:
        logging.getLogger("understudy.worker.job.settle").warning("%d are held", len(items))
        return list(items)

    coalescer = Coalescer(handle, max_items=10, max_delay_s=0.0)
    stream = io.StringIO()
    handler = log_handler(LogSettings(), stream)
    logging.getLogger().addHandler(handler)
    try:
        with about(worker_id="wrk_1"), about(job_id="job_1"):
            await coalescer.add(1)
    finally:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue().endswith("WARNING understudy.worker.job.settle 1 are held [worker_id=wrk_1]\n")
