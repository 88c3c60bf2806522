"""Prometheus metrics of the limiter: limits, calls in flight and cooldowns of the whole fleet.

Every API process exports the same values: take the maximum. Accounts appear by their configured names, never by the
value of a key. At most SERIES_MAX deployments are exported, busiest first, because callers may use any model name.
"""

import asyncio
import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.asyncio import Redis

from understudy.models.config.catalog import limits_of
from understudy.models.config.provider_settings import ApiKey
from understudy.models.config.settings import Settings
from understudy.models.limits.state import Limit, LimitState
from understudy.producer.status.provider_state import LedgerPart, Place, live_of, places

KEPT_S = 5.0
"""Seconds between reads of Redis, however often metrics are scraped."""

ASK_REDIS_S = 2.0
SERIES_MAX = 300
LABELS = ["provider", "model", "account"]


class LimitMetrics(Collector):
    """The limits as of the last call of `read`; none while Redis does not answer."""

    def __init__(self) -> None:
        self._read_at = -KEPT_S
        self._settings = Settings()
        self._live: LimitState | None = None

    async def read(self, redis: Redis, settings: Settings) -> None:
        if time.monotonic() - self._read_at < KEPT_S:
            return
        self._settings = settings
        try:
            async with asyncio.timeout(ASK_REDIS_S):
                self._live = await live_of(redis, settings, LedgerPart())
        except TimeoutError:
            self._live = None
        self._read_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        flight = GaugeMetricFamily("understudy_calls_in_flight", "Provider calls in flight", labels=LABELS)
        cooldown = GaugeMetricFamily(
            "understudy_cooldown_seconds",
            "Time during which no call may start, after refusals or failures",
            labels=LABELS,
        )
        help_ = "The limit per minute in effect, by source"
        requests = GaugeMetricFamily("understudy_requests_per_minute", help_, labels=[*LABELS, "source"])
        tokens = GaugeMetricFamily("understudy_tokens_per_minute", help_, labels=[*LABELS, "source"])
        live = self._live
        if live is None:
            return
        for labels, place, key in self._shown(live):
            state = live.of(place.account, place.model)
            flight.add_metric(labels, state.in_flight)
            cooldown.add_metric(labels, _cooled_for_s(place, live))
            configured = limits_of(place.provider.settings, place.model or "", key)
            _add(requests, labels, state.requests.limit(configured.requests_per_minute))
            _add(tokens, labels, state.tokens.limit(configured.tokens_per_minute))
        yield from (flight, cooldown, requests, tokens)

    def _shown(self, live: LimitState) -> list[tuple[list[str], Place, ApiKey]]:
        """Deployments with their labels. Keys of one account share its series."""
        found = {
            (place.provider.name, place.model, place.account): (place, place.key)
            for place in places(self._settings, LedgerPart(), live)
            if place.key is not None and place.model is not None
        }
        busy_first = sorted(found.values(), key=lambda each: -live.of(each[0].account, each[0].model).in_flight)
        return [
            ([place.provider.name, place.model or "", place.account], place, key)
            for place, key in busy_first[:SERIES_MAX]
        ]


def _cooled_for_s(place: Place, live: LimitState) -> float:
    cooldowns = live.cooldowns_of(place.provider.name, place.account, place.model)
    return round(max((each.until - live.now for each in cooldowns if each.until > live.now), default=0.0), 3)


def _add(family: GaugeMetricFamily, labels: list[str], limit: Limit) -> None:
    if limit.amount is not None:
        family.add_metric([*labels, limit.source], round(limit.amount, 1))
