"""Latencies of deployments, recently measured across the fleet: for chains with `order = "fastest"`.

Each worker keeps its measurements and shares them with every beat. Old ones are dropped, so that a step that was slow,
and therefore is no longer used, is measured again.
"""

import logging
import time
from collections.abc import Callable

from understudy.models.queue import keys
from understudy.models.queue.redis_values import number, text
from understudy.worker.bounded_mapping import Latest
from understudy.worker.redis_scripts import RedisUnavailable, Script, ScriptRunner

log = logging.getLogger(__name__)

FORGET_S = 300.0
NEW_SHARE = 0.2
"""The weight of a new measurement in the average."""

MEASURING_S = 30.0
"""While a step is being measured, no other job is sent to it for that reason; this is the limit if no result comes."""

SHARE = Script.load("worker/limits/latency.lua")


class Latencies:
    """What this worker knows. Steps are named `provider/model`; latencies are milliseconds."""

    def __init__(self, scripts: ScriptRunner, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._scripts = scripts
        self._monotonic = monotonic
        self._known: dict[str, float] = {}
        self._news: dict[str, list[float]] = {}
        self._measured_since: Latest[str, float] = Latest()

    def answered(self, provider: str, model: str, latency_ms: float) -> None:
        """A call was answered after this many milliseconds."""
        step = f"{provider}/{model}"
        self._news.setdefault(step, []).append(latency_ms)
        known = self._known.get(step, latency_ms)
        self._known[step] = known + NEW_SHARE * (latency_ms - known)
        self._measured_since.pop(step, None)

    def of(self, step: str) -> float | None:
        """Its average, or None without a recent measurement."""
        return self._known.get(step)

    def is_measured(self, step: str) -> bool:
        """Whether a job was recently sent to it to measure it."""
        return self._monotonic() - self._measured_since.get(step, float("-inf")) < MEASURING_S

    def measure(self, step: str) -> None:
        """A job is sent to it to measure it."""
        self._measured_since[step] = self._monotonic()

    async def share(self) -> None:
        """Share new measurements, and read those of the fleet. If Redis is unavailable they are shared next time."""
        telling, self._news = self._news, {}
        args: list[object] = []
        for step, latencies in telling.items():
            args += [step, sum(latencies) / len(latencies), 1 - (1 - NEW_SHARE) ** len(latencies)]
        try:
            reply = await self._scripts.run(SHARE, [keys.LATENCY], [round(FORGET_S * 1000), *args])
        except RedisUnavailable as away:
            log.warning("Latencies could not be shared: %s", away)
            for step, latencies in telling.items():
                self._news.setdefault(step, []).extend(latencies)
            return
        read = ((text(step), number(ms)) for step, ms in zip(reply[::2], reply[1::2], strict=True))
        self._known = {step: ms for step, ms in read if ms is not None}
