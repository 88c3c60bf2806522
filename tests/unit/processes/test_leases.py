"""Many hold the lock at the same time, or one alone."""

import asyncio

from understudy.worker.leases import RWLock


async def pass_through(gate: RWLock, seen: list[str]) -> None:
    async with gate.passing():
        seen.append("passed")


async def test_nobody_passes_while_one_is_alone_also_when_it_had_just_been_opened() -> None:
    gate, seen = RWLock(), list[str]()
    async with gate.alone():
        others = [asyncio.create_task(pass_through(gate, seen)) for _ in range(3)]
        await asyncio.sleep(0)
    async with gate.alone():  # before those that were admitted have woken up
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen == []
    await asyncio.gather(*others)
    assert seen == ["passed"] * 3


async def test_who_wants_to_be_alone_waits_for_those_inside() -> None:
    gate, seen = RWLock(), list[str]()

    async def alone() -> None:
        async with gate.alone():
            seen.append("alone")

    async with gate.passing():
        waiting = asyncio.create_task(alone())
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen == []
    await waiting
    assert seen == ["alone"]
