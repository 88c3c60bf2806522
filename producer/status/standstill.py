"""Explains why work has stopped, for `run`, `watch` and `status`."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from understudy.models.config.catalog import UnknownProvider, resolve_provider
from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.views import BatchView
from understudy.models.jobs.wait_reasons import CREDENTIAL, PAUSED, WHO_CAN_HELP, Waiting
from understudy.models.state import OPEN_BATCH_STATES, JobState
from understudy.models.store import Store
from understudy.producer.number_format import counted
from understudy.producer.queue_access import queue_of
from understudy.producer.status.failed_calls import in_a_line, said
from understudy.producer.status.waiting import (
    NOTHING_STARTS,
    WaitNews,
    blocked_by,
    explained,
    first_paused,
    lack_of_workers,
    resume_advice,
    waiting_of,
)

STILL_AFTER_S = 10.0
"""Seconds without a finished job after which work counts as stopped."""

LOOK_EVERY_S = 1.0

SAY_EVERY_S = 60.0
"""Seconds. At a failing provider, cooldowns and breaker pauses alternate every few seconds: one line a minute is
enough."""

CALLS = "calls"
"""A wait reason used only here: calls are in flight, and none has ended."""


async def awaited(settings: Settings, store: Store, views: Sequence[BatchView]) -> tuple[Waiting | None, str]:
    """What the first waiting batch waits for, and the sentence that explains it.

    None and an empty text: all are running or have ended. Raises StoreError.
    """
    if held := first_paused(views):
        paused = held.paused or ""
        return Waiting(paused, PAUSED), f"it is paused: {paused}; {resume_advice(held)}"
    open_ones = [view for view in views if view.state in OPEN_BATCH_STATES]
    if not open_ones:
        return None, ""
    async with queue_of(settings) as queue:
        waits = await waiting_of(store, queue, open_ones)
    view, waiting = next(((view, each) for view, each in zip(open_ones, waits, strict=True) if each), (None, None))
    why = await lack_of_workers(store) or await blocked_by(store, settings, [each.id for each in open_ones])
    if why:
        return waiting or Waiting(why, CREDENTIAL), f"it waits: {why}"
    if view is None or waiting is None:
        return None, ""
    sentence = explained(waiting, await store.now()) or ""
    cause = None if waiting.hold in NOTHING_STARTS else await _last_failure(settings, store, view, waiting)
    return waiting, f"{sentence}; the last call: {cause}" if cause else sentence


async def _last_failure(settings: Settings, store: Store, view: BatchView, waiting: Waiting) -> str | None:
    """How the batch's latest call to that provider failed; None: it did not fail, or there was none."""
    if waiting.provider is None:
        return None
    calls = await store.jobs.attempts(batch_id=view.id, provider=waiting.provider, limit=1, latest=True)
    if not calls or calls[0]["failure"] is None:
        return None
    call = calls[0]
    if call["failure"] == FailureClass.CONNECT:
        with suppress(UnknownProvider):
            return f"{in_a_line(call['message'])} ({resolve_provider(settings, waiting.provider).base_url})"
    return said(call)


class Standstill:
    """Reports the wait reason once no job has ended for `after_s`, and again when it changes or persists."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        say: Callable[[str], None],
        after_s: float = STILL_AFTER_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._say = say
        self._after_s = after_s
        self._monotonic = monotonic
        self._news = WaitNews()
        self._done = -1
        self._since = self._looked_at = float("-inf")
        self._seen: tuple[Waiting, str] | None = None
        self._said_of: tuple[str | None, str | None, str | None] | None = None
        self._said_at = float("-inf")

    async def look(self, views: Sequence[BatchView], done: int) -> None:
        """`done`: number of finished jobs. Raises StoreError."""
        now = self._monotonic()
        if done != self._done:
            self._done, self._since, self._seen = done, now, None
        if now - self._looked_at < min(LOOK_EVERY_S, self._after_s):
            return
        self._looked_at = now
        waiting, sentence = await awaited(self._settings, self._store, views)
        if waiting is not None:  # kept, because between two attempts of a few jobs nothing waits
            self._seen = waiting, sentence
        if now - self._since < self._after_s:
            return
        waiting, sentence = self._seen or (None, "")
        if waiting is None and now - self._since >= STILL_AFTER_S:  # earlier, answers are merely pending
            waiting, sentence = _under_way(views)
        if waiting is None:
            return
        whom = (waiting.provider, waiting.model, WHO_CAN_HELP.get(waiting.hold))
        if whom == self._said_of and now - self._said_at < SAY_EVERY_S:
            return
        if self._news.is_news(waiting, await self._store.now()):
            self._said_of, self._said_at = whom, now
            self._say(sentence)


def _under_way(views: Sequence[BatchView]) -> tuple[Waiting | None, str]:
    running = sum(view.counts.get(JobState.RUNNING, 0) for view in views)
    if not running:
        return None, ""
    return Waiting("calls are in flight", CALLS), f"waiting for answers: {counted(running, 'call')} in flight"
