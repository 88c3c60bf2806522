"""The ledger's time is read from time to time, and continued by a clock that no one sets."""

from understudy.models.ledger_clock import LedgerClock


class World:
    """A ledger, the monotonic clock of a machine, and the round-trip time of a query."""

    def __init__(self) -> None:
        self.ledger_s, self.monotonic_s = 1_800_000_000.0, 50.0
        self.there_s, self.back_s = 0.1, 0.1

    def passes(self, seconds: float) -> None:
        self.ledger_s += seconds
        self.monotonic_s += seconds

    async def now(self) -> float:
        self.passes(self.there_s)
        told = self.ledger_s
        self.passes(self.back_s)
        return told

    def monotonic(self) -> float:
        return self.monotonic_s


async def test_it_goes_on_between_two_readings() -> None:
    world = World()
    clock = LedgerClock(world.now, world.monotonic)
    await clock.read()
    assert abs(clock() - world.ledger_s) < 0.001
    world.passes(3600.0)
    assert abs(clock() - world.ledger_s) < 0.001


async def test_a_slow_reading_does_not_spoil_a_quick_one() -> None:
    world = World()
    clock = LedgerClock(world.now, world.monotonic)
    await clock.read()
    world.there_s, world.back_s = 0.1, 6.0
    await clock.read()
    assert abs(clock() - world.ledger_s) < 0.001


async def test_a_quick_reading_corrects_a_slow_one() -> None:
    world = World()
    clock = LedgerClock(world.now, world.monotonic)
    world.there_s, world.back_s = 0.1, 6.0
    await clock.read()
    assert abs(clock() - world.ledger_s) > 2.0
    world.back_s = 0.2
    await clock.read()
    assert abs(clock() - world.ledger_s) <= 0.1


async def test_a_machine_that_slept_knows_the_time_after_the_next_reading() -> None:
    world = World()
    clock = LedgerClock(world.now, world.monotonic)
    await clock.read()
    world.ledger_s += 7200.0
    await clock.read()
    assert abs(clock() - world.ledger_s) < 0.1
