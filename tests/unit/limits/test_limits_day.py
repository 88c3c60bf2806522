"""The limits of a UTC day over a fake Redis, with simulated time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from limiter_fleet import BEGIN_MS, Fleet

from understudy.models.config.provider_settings import Limits
from understudy.models.failure import Scope
from understudy.models.limits.state import DAY_S, DayUse, end_of_day, read_limits
from understudy.models.queue import keys
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Hold, Refusal

BEGIN = BEGIN_MS / 1000
MIDNIGHT = end_of_day(BEGIN)
DEPLOYMENT = Deployment("alpha", "large", "main", "alpha:main")
DAY_KEY = keys.day("alpha:main", "large")
FAST = 60_000_000.0
"""Requests a minute that delay no call, and end slow start."""


def of_day(requests: int | None = None, tokens: int | None = None, **more: float) -> Candidate:
    fields = {"requests_per_minute": FAST, **more}
    return Candidate(DEPLOYMENT, **fields, requests_per_day=requests, tokens_per_day=tokens)  # type: ignore[arg-type]


class DayFleet(Fleet):
    """Three workers, with a clock that shows unix seconds."""

    def __init__(self) -> None:
        super().__init__(workers=3)

    @property
    def now(self) -> float:
        return BEGIN + self.ms / 1000

    def at(self, now: float) -> None:
        self.at_ms((now - BEGIN) * 1000)

    async def grants(self, candidate: Candidate, *, tokens: int = 10) -> list[Grant]:
        """As many as there are."""
        found: list[Grant] = []
        while isinstance(reply := await self.one.reserve([candidate], tokens), Grant):
            found.append(reply)
            assert len(found) < 1000, "no limit holds"
        return found

    async def used(self) -> DayUse:
        """As people see it. The reader's clock is the real one, so today's fields are given to it as its own."""
        today, real = int(self.now // DAY_S), (await read_limits(self.redis)).now
        count = await self.redis.hgetall(DAY_KEY)
        moved = {name.replace(b"%d|" % today, b"%d|" % (real // DAY_S)): value for name, value in count.items()}
        await self.redis.hset("understudy:day:beta:copy:large", mapping=moved)
        return (await read_limits(self.redis)).of("beta:copy", "large").day


@pytest.fixture
async def fleet() -> AsyncIterator[DayFleet]:
    made = DayFleet()
    yield made
    await made.redis.aclose()


async def test_a_crowd_of_workers_starts_as_many_calls_as_a_day_allows(fleet: DayFleet) -> None:
    limited = of_day(25)
    replies = await asyncio.gather(*(fleet.workers[n % 3].reserve([limited], 10) for n in range(200)))
    assert sum(isinstance(reply, Grant) for reply in replies) == 25
    refused = [reply for reply in replies if isinstance(reply, Refusal)]
    assert {(reply.hold, reply.until) for reply in refused} == {(Hold.DAY, MIDNIGHT)}
    waiting = refused[0].waiting
    assert (waiting.reason, waiting.account) == ("the daily limit is used up at alpha/large", "alpha:main")


async def test_at_midnight_the_day_starts_over(fleet: DayFleet) -> None:
    limited = of_day(2)
    assert len(await fleet.grants(limited)) == 2
    fleet.at(MIDNIGHT - 0.001)
    assert (await fleet.refusal(limited)).until == MIDNIGHT
    fleet.at(MIDNIGHT)
    assert len(await fleet.grants(limited)) == 2
    assert (await fleet.refusal(limited)).until == MIDNIGHT + DAY_S


async def test_no_day_of_many_starts_more_than_its_calls(fleet: DayFleet) -> None:
    """Even if starts are booked across midnight, and if calls of yesterday end today."""
    limited, starts, late = of_day(40, requests_per_minute=60.0), list[float](), list[Grant]()
    for day in range(3):
        for step in range(120):
            fleet.at(MIDNIGHT + day * DAY_S - 30 + step * 0.5)
            reply = await fleet.workers[step % 3].reserve([limited], 10)
            if isinstance(reply, Grant):
                starts.append(reply.start_ms)
                late.append(reply)
            if len(late) > 8:
                await fleet.one.release(late.pop(0), 5)
    counts = [sum(start // (DAY_S * 1000) == day for start in starts) for day in {s // (DAY_S * 1000) for s in starts}]
    assert max(counts) == 40 and len(counts) == 4


async def test_a_call_that_starts_after_midnight_counts_for_its_own_day(fleet: DayFleet) -> None:
    slow = of_day(2, requests_per_minute=60.0)
    fleet.at(MIDNIGHT - 0.5)
    assert [(await fleet.grant(slow)).start_ms // 1000 >= MIDNIGHT for _ in range(2)] == [False, True]
    fleet.at(MIDNIGHT + 5)
    assert (await fleet.used()).requests == 1


async def test_what_is_booked_over_midnight_is_held_to_the_day_in_which_it_starts(fleet: DayFleet) -> None:
    """The schedule is full of other calls, so the next starts are tomorrow's."""
    limited = of_day(3, requests_per_minute=600.0)
    fleet.at(MIDNIGHT - 10)
    assert len(await fleet.grants(limited)) == 3, "today is used up"
    fleet.at(MIDNIGHT - 0.05)
    while not (await fleet.grant(of_day(requests_per_minute=600.0))).wait_s:
        pass
    starts = [grant.start_ms / 1000 for grant in await fleet.grants(limited)]
    assert len(starts) == 3 and MIDNIGHT <= min(starts) and max(starts) < MIDNIGHT + 1
    assert (await fleet.refusal(limited)).until == MIDNIGHT + DAY_S


async def test_a_call_that_is_never_made_is_given_back(fleet: DayFleet) -> None:
    limited = of_day(3, 1_000)
    for _ in range(10):
        await fleet.one.cancel(await fleet.grant(limited, tokens=300))
    assert len(await fleet.grants(limited, tokens=300)) == 3


async def test_a_call_that_the_provider_refused_is_given_back_and_one_that_failed_is_not(fleet: DayFleet) -> None:
    limited = of_day(3, 1_000)
    await fleet.one.release(await fleet.grant(limited, tokens=400), None, refused=True)
    assert await fleet.used() == DayUse(0, 0)
    await fleet.one.release(await fleet.grant(limited, tokens=400), None)
    assert await fleet.used() == DayUse(1, 400)


async def test_what_a_call_of_yesterday_gives_back_is_not_taken_from_today(fleet: DayFleet) -> None:
    limited = of_day(2, 1_000)
    yesterday = await fleet.grants(limited, tokens=500)
    fleet.at(MIDNIGHT + 60)
    await fleet.grants(limited, tokens=500)
    for grant in yesterday:
        await fleet.one.release(grant, None, refused=True)
    assert await fleet.used() == DayUse(2, 1_000)
    assert (await fleet.refusal(limited, tokens=1)).hold is Hold.DAY


async def test_tokens_are_settled_with_what_was_used(fleet: DayFleet) -> None:
    limited = of_day(tokens=1_000)
    await fleet.one.release(await fleet.grant(limited, tokens=900), 100)
    assert await fleet.used() == DayUse(1, 100)
    await fleet.one.release(await fleet.grant(limited, tokens=100), 890)
    assert (await fleet.used()).tokens == 990
    assert (await fleet.refusal(limited, tokens=20)).until == MIDNIGHT
    await fleet.grant(limited, tokens=10)


async def test_what_calls_under_way_may_give_back_is_waited_for_no_longer_than_they_run(fleet: DayFleet) -> None:
    limited = of_day(tokens=1_000)
    grant = await fleet.grant(limited, tokens=900)
    refused = await fleet.refusal(limited, tokens=500)
    assert (refused.hold, refused.until) == (Hold.DAY, fleet.now + 1)
    (seen,) = await fleet.one.outlook([limited], 0.6, 500)
    assert (seen.starts, seen.cooled_for_s) == (0, 1.0)
    await fleet.one.release(grant, 900)
    assert (await fleet.refusal(limited, tokens=500)).until == MIDNIGHT


async def test_what_a_killed_worker_held_is_waited_for_until_its_lease_ends(fleet: DayFleet) -> None:
    limited = of_day(tokens=1_000)
    await fleet.workers[1].reserve([limited], 900)
    assert (await fleet.refusal(limited, tokens=500)).until == fleet.now + 1
    fleet.at(fleet.now + 16)
    assert (await fleet.refusal(limited, tokens=500)).until == MIDNIGHT


async def test_a_call_that_is_larger_than_a_whole_day_is_the_only_one_of_its_day(fleet: DayFleet) -> None:
    limited = of_day(tokens=1_000)
    assert len(await fleet.grants(limited, tokens=5_000)) == 1
    assert (await fleet.refusal(limited, tokens=1)).hold is Hold.DAY


async def test_a_longer_cooldown_is_what_holds_and_a_shorter_one_is_not(fleet: DayFleet) -> None:
    limited = of_day(1)
    await fleet.grant(limited)
    await fleet.one.cool(DEPLOYMENT, Scope.MODEL, 60.0, "429")
    assert (await fleet.refusal(limited)).hold is Hold.DAY
    until = await fleet.one.cool(DEPLOYMENT, Scope.MODEL, MIDNIGHT - fleet.now + 60.0, "429")
    refused = await fleet.refusal(limited)
    assert (refused.hold, refused.until) == (Hold.COOLDOWN, until)


async def test_another_account_takes_over(fleet: DayFleet) -> None:
    limited = of_day(1)
    spare = Candidate(Deployment("alpha", "large", "spare", "alpha:spare"), FAST, requests_per_day=1)
    names = []
    while isinstance(reply := await fleet.one.reserve([limited, spare], 10), Grant):
        names.append(reply.candidate.deployment.key)
    assert names == ["main", "spare"]


async def test_the_outlook_promises_what_is_left_of_the_day_and_then_nothing_until_midnight(fleet: DayFleet) -> None:
    limited = of_day(5, 1_000)
    (seen,) = await fleet.one.outlook([limited], 0.6, 100)
    assert (seen.starts, seen.hold, seen.cooled_for_s) == (5, Hold.DAY, None)
    await fleet.grants(limited, tokens=300)
    (seen,) = await fleet.one.outlook([limited], 0.6, 50)
    assert (seen.starts, seen.cooled_for_s) == (2, None)
    await fleet.grants(limited, tokens=1)
    (seen,) = await fleet.one.outlook([limited], 0.6, 50)
    assert (seen.starts, seen.hold, seen.cooled_for_s) == (0, Hold.DAY, MIDNIGHT - fleet.now)
    assert seen.first_at == MIDNIGHT


async def test_the_count_outlives_its_day_and_no_more_than_two_days_are_kept(fleet: DayFleet) -> None:
    for day in range(5):
        fleet.at(BEGIN + day * DAY_S)
        await fleet.grant(of_day(100))
        assert await fleet.redis.pttl(DAY_KEY) == pytest.approx(
            (end_of_day(fleet.now) - fleet.now + 3600) * 1000, abs=5000
        )
    assert len({name.split(b"|")[0] for name in await fleet.redis.hkeys(DAY_KEY)}) == 2


async def test_without_a_limit_of_the_day_nothing_is_counted(fleet: DayFleet) -> None:
    await fleet.one.release(await fleet.grant(of_day()), 10)
    assert not await fleet.redis.exists(DAY_KEY)


def test_what_is_used_up_starts_again_at_midnight() -> None:
    limits = Limits(requests_per_day=5, tokens_per_day=100)
    assert DayUse(4, 99).next_start(limits, BEGIN) == BEGIN
    assert DayUse(5, 0).next_start(limits, BEGIN) == DayUse(0, 100).next_start(limits, BEGIN) == MIDNIGHT
    assert DayUse(5, 500).next_start(Limits(), BEGIN) == BEGIN
