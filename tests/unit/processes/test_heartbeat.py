"""The heartbeat runs in its own thread, and says whether the lease can still be valid."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from understudy.models.store import StoreBusy
from understudy.worker import heartbeat as heartbeat_module
from understudy.worker.heartbeat import Heartbeat

pytestmark = pytest.mark.timeout(30)

LEASE_S = 0.6


class Ledger:
    """Accepts heartbeats, or does not."""

    def __init__(self) -> None:
        self.away = False
        self.hangs_s = 0.0
        self.beats = self.missed = 0

    async def open_beat(self, stack: AsyncExitStack) -> Callable[[], Awaitable[None]]:
        return self.beat

    async def beat(self) -> None:
        await asyncio.sleep(self.hangs_s)
        if self.away:
            raise StoreBusy("the database is read-only")
        self.beats += 1

    def was_missed(self) -> None:
        self.missed += 1


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_lease_runs_while_beats_get_through_and_ends_with_them() -> None:
    ledger = Ledger()
    heartbeat = Heartbeat(ledger.open_beat, LEASE_S, ledger.was_missed)
    heartbeat.start()
    await until(lambda: ledger.beats >= 5 and heartbeat.lease_runs())
    ledger.away = True
    await until(lambda: ledger.missed > 0 and not heartbeat.lease_runs())
    ledger.away = False
    await until(heartbeat.lease_runs)
    heartbeat.stop()
    beats = ledger.beats
    await until(lambda: not heartbeat.lease_runs())
    assert ledger.beats == beats


async def test_all_is_well_only_while_the_lease_runs() -> None:
    ledger = Ledger()
    said: list[bool] = []
    heartbeat = Heartbeat(ledger.open_beat, LEASE_S, well=lambda: said.append(heartbeat.lease_runs()))
    heartbeat.start()
    ledger.away = True
    await until(lambda: not heartbeat.lease_runs())
    watch = asyncio.create_task(heartbeat.watch())
    await asyncio.sleep(0)
    assert said == []
    ledger.away = False
    await until(lambda: bool(said))
    assert said[0]
    watch.cancel()
    heartbeat.stop()


async def test_a_beat_that_hung_is_told_before_the_next_one_is_taken_for_granted() -> None:
    """Otherwise a rescue right after the ledger hung would take every worker for dead."""
    ledger = Ledger()
    heartbeat = Heartbeat(ledger.open_beat, LEASE_S, ledger.was_missed)
    heartbeat.start()
    await until(lambda: ledger.beats >= 3 and heartbeat.in_touch())
    ledger.hangs_s = 2 * LEASE_S
    await until(lambda: not heartbeat.in_touch())
    missed = ledger.missed
    ledger.hangs_s = 0.0
    await until(heartbeat.in_touch)
    assert ledger.missed > missed
    heartbeat.stop()


async def test_it_stops_at_once_however_far_the_next_beat_is() -> None:
    ledger = Ledger()
    heartbeat = Heartbeat(ledger.open_beat, lease_s=3600.0)
    heartbeat.start()
    await until(lambda: ledger.beats == 1)
    began = time.monotonic()
    heartbeat.stop()
    assert time.monotonic() - began < 1.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_one_that_died_is_noticed_and_can_be_stopped() -> None:
    async def broken(stack: AsyncExitStack) -> Callable[[], Awaitable[None]]:
        raise TypeError("a mistake of ours")

    heartbeat = Heartbeat(broken, LEASE_S)
    heartbeat.start()
    with pytest.raises(RuntimeError, match="heartbeat has died"):
        await heartbeat.watch()
    heartbeat.stop()


async def test_a_main_loop_that_stops_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "STUCK_S", 1.0)
    monkeypatch.setattr(heartbeat_module, "WATCH_EVERY_S", 0.05)
    ledger, ended = Ledger(), threading.Event()
    heartbeat = Heartbeat(ledger.open_beat, LEASE_S, stuck=ended.set)
    heartbeat.start()
    watching = asyncio.create_task(heartbeat.watch())
    await until(lambda: ledger.beats >= 10)
    assert not ended.is_set(), "it turns"
    assert ended.wait(timeout=15), "this waits in the main loop, which does not turn meanwhile"
    watching.cancel()
    heartbeat.stop()
