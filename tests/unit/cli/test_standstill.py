"""When work stops, one sentence says what it waits for: once, and again when the reason changes."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from test_progress import Time, view

from understudy.models.config.settings import Settings
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.producer.status import standstill
from understudy.producer.status.standstill import Standstill

Said = tuple[Waiting | None, str]
NOTHING: Said = (None, "")
REFUSED = Waiting("resting after failures at a/m", "breaker", "a", "m")
WAITS: Said = (REFUSED, "waits for a/m: resting after failures")
OTHER: Said = (Waiting("the daily limit is used up at b/m", "day", "b", "m"), "waits for b/m: the day")


class Watcher:
    def __init__(self, after_s: float = 10.0) -> None:
        self.clock = Time()
        self.heard: list[str] = []
        self.awaited: Said = NOTHING
        store = cast(Store, self)
        self._still = Standstill(Settings(), store, self.heard.append, after_s, self.clock)

    async def now(self) -> float:
        return self.clock.now

    async def after(self, seconds: float, done: int = 0, **fields: Any) -> list[str]:
        self.clock.now += seconds
        self.heard.clear()
        await self._still.look([view(done, **fields)], done)
        return list(self.heard)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    made = Watcher()

    async def awaited(*_: object) -> Said:
        return made.awaited

    monkeypatch.setattr(standstill, "awaited", cast(Callable[..., Any], awaited))
    return made


async def test_what_is_waited_for_is_said_once_nothing_has_ended_for_a_while(watcher: Watcher) -> None:
    watcher.awaited = WAITS
    assert await watcher.after(0) == [] and await watcher.after(9) == []
    assert await watcher.after(1) == [WAITS[1]]
    assert await watcher.after(100) == []


async def test_it_is_said_also_when_at_this_very_moment_a_few_calls_try_again(watcher: Watcher) -> None:
    watcher.awaited = WAITS
    await watcher.after(0)
    await watcher.after(5)
    watcher.awaited = NOTHING
    assert await watcher.after(5, counts={JobState.RUNNING: 3}) == [WAITS[1]]


async def test_at_one_provider_reasons_that_take_turns_fill_no_log(watcher: Watcher) -> None:
    cools: Said = (
        Waiting("cooling down after a refusal at a/m", "cooldown", "a", "m", until=1e9),
        "waits for a/m: cooling",
    )
    said = 0
    for second in range(120):
        watcher.awaited = cools if second % 2 else WAITS
        said += len(await watcher.after(1))
    assert 2 <= said <= 3


async def test_that_a_person_must_act_now_is_said_at_once(watcher: Watcher) -> None:
    watcher.awaited = WAITS
    await watcher.after(0)
    await watcher.after(10)
    refused = Waiting("no key of a is accepted", "credential", "a", "m")
    watcher.awaited = (refused, "it waits: no key of a is accepted")
    assert await watcher.after(1) == [watcher.awaited[1]]


async def test_another_provider_is_said_at_once(watcher: Watcher) -> None:
    watcher.awaited = WAITS
    await watcher.after(0)
    await watcher.after(10)
    watcher.awaited = OTHER
    assert await watcher.after(1) == [OTHER[1]]


async def test_work_that_moves_is_silent(watcher: Watcher) -> None:
    watcher.awaited = WAITS
    for done in range(1, 10):
        assert await watcher.after(9, done) == []


async def test_a_reason_from_before_an_answer_came_is_not_repeated_as_that_of_now(watcher: Watcher) -> None:
    watcher.awaited = WAITS
    await watcher.after(0)
    watcher.awaited = NOTHING
    await watcher.after(9, 1)
    said = await watcher.after(10, 1, counts={JobState.RUNNING: 1})
    assert said == ["waiting for answers: 1 call in flight"]


async def test_a_watcher_does_not_see_calls_that_have_only_begun(watcher: Watcher) -> None:
    watching = Watcher(after_s=0.0)
    for seconds in (0, 9):
        assert await watching.after(seconds, counts={JobState.RUNNING: 3}) == []
    assert await watching.after(1, counts={JobState.RUNNING: 3}) == ["waiting for answers: 3 calls in flight"]


async def test_without_any_reason_nothing_is_made_up(watcher: Watcher) -> None:
    await watcher.after(0)
    assert await watcher.after(60, counts={}) == []
