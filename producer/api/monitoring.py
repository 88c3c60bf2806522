"""Whether the stores are reachable, and Prometheus metrics: counts and the age of the queue from the ledger, limits and
cooldowns from Redis, and the requests of this process.

Ledger and limits cover the whole fleet, and every API process exports the same values: scrape one process, or take the
maximum, never the sum. No metric contains a tenant, job or prompt; accounts appear by their configured names, never by
the value of a key. Since callers may use any model name, the first SERIES_MAX models get their own series; the others
share `OTHERS` of their provider. Of deployments, SERIES_MAX are exported, busiest first.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.config.catalog import limits_of
from understudy.models.config.provider_settings import ApiKey
from understudy.models.config.settings import Settings
from understudy.models.limits.state import Limit, LimitState
from understudy.models.state import Priority
from understudy.models.store import Store, StoreError
from understudy.models.store.metrics import Backlog
from understudy.producer.status.provider_state import LedgerPart, Place, live_of, places

KEPT_S = 5.0
"""Seconds between reads of the ledger, and of Redis, however often metrics are scraped."""

READINESS_KEPT_S = 0.5

OTHERS = "other models"
"""Not a possible model name."""

ASK_REDIS_S = 2.0
SERIES_MAX = 300
LABELS = ["provider", "model", "account"]

SETTLED_MINUTES = 2
"""Minutes after which the counts of a minute no longer grow."""


class LedgerMetrics(Collector):
    """Metrics from the ledger, as of the last call of `read`."""

    def __init__(self) -> None:
        self._read_at = -KEPT_S
        self._backlog: dict[Priority, Backlog] = {}
        self._workers = 0
        self._webhooks = (0, 0.0)
        self._from_minute = int(time.time() // 60)
        self._settled: Counter[tuple[str, ...]] = Counter()
        self._latest: Counter[tuple[str, ...]] = Counter()
        self._named: set[tuple[str, str]] = set()

    async def read(self, store: Store) -> None:
        """Raises StoreError."""
        if time.monotonic() - self._read_at < KEPT_S:
            return
        self._backlog = await store.metrics.backlog()
        self._workers = len(await store.workers.live())
        self._webhooks = await store.metrics.undelivered_webhooks()
        await self._count(store)
        self._read_at = time.monotonic()

    async def _count(self, store: Store) -> None:
        """Settled minutes are added up once; only the latest ones are read again."""
        settled_before = int(await store.now() // 60) - SETTLED_MINUTES
        self._latest.clear()
        for row in await store.metrics.tallies_since(self._from_minute):
            counts = self._settled if row.minute < settled_before else self._latest
            if row.kind == "job":
                counts["jobs", row.outcome] += int(row.sum_count)
                continue
            model = self._shown(row.provider, row.model)
            counts["attempts", row.provider, model, row.outcome] += int(row.sum_count)
            counts["tokens", row.provider, model, "input"] += int(row.sum_input_tokens)
            counts["tokens", row.provider, model, "output"] += int(row.sum_output_tokens)
            counts["cost", row.provider, model] += row.sum_cost_usd
        self._from_minute = max(self._from_minute, settled_before)

    def _shown(self, provider: str, model: str) -> str:
        """A model keeps its series: a decreasing counter would look like a restart."""
        if len(self._named) < SERIES_MAX:
            self._named.add((provider, model))
        return model if (provider, model) in self._named else OTHERS

    def collect(self) -> Iterator[Metric]:
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("understudy_ready_jobs", "Queued jobs that could start now", labels=["priority"])
        age = GaugeMetricFamily(
            "understudy_oldest_ready_seconds", "Time that the oldest ready job has been ready", labels=["priority"]
        )
        waiting = GaugeMetricFamily("understudy_waiting_jobs", "Jobs put back to a later time", labels=["priority"])
        for priority, backlog in self._backlog.items():
            ready.add_metric([priority.queue], backlog.ready)
            age.add_metric([priority.queue], backlog.oldest_ready_s)
            waiting.add_metric([priority.queue], backlog.waiting)
        yield from (ready, age, waiting)
        yield GaugeMetricFamily("understudy_workers", "Live worker processes", self._workers)
        pending, oldest_s = self._webhooks
        yield GaugeMetricFamily("understudy_pending_webhooks", "Webhooks not delivered yet", pending)
        yield GaugeMetricFamily("understudy_oldest_webhook_seconds", "Age of the oldest undelivered webhook", oldest_s)

    def _counters(self) -> Iterator[Metric]:
        families = {
            "jobs": CounterMetricFamily("understudy_jobs", "Finished jobs", labels=["state"]),
            "attempts": CounterMetricFamily(
                "understudy_attempts", "Provider calls", labels=["provider", "model", "outcome"]
            ),
            "tokens": CounterMetricFamily(
                "understudy_tokens", "Tokens used", labels=["provider", "model", "direction"]
            ),
            "cost": CounterMetricFamily("understudy_cost_usd", "Cost in US dollars", labels=["provider", "model"]),
        }
        for (family, *labels), value in sorted((self._settled + self._latest).items()):
            families[family].add_metric(labels, value)
        yield from families.values()


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


class Metrics:
    """The registry of one API process."""

    def __init__(self) -> None:
        self.ledger = LedgerMetrics()
        self.registry = CollectorRegistry()
        Info("understudy_build", "Version of this API process", registry=self.registry).info(
            {"version": version("understudy")}
        )
        self.registry.register(self.ledger)
        self.limits = LimitMetrics()
        self.registry.register(self.limits)
        self.requests = Histogram(
            "understudy_http_request_seconds",
            "Time until the response started, by route and status",
            ["method", "route", "status"],
            registry=self.registry,
        )


class Readiness:
    """Caches the checks for READINESS_KEPT_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: tuple[float, Mapping[str, str]] | None = None
        self._looking = asyncio.Lock()

    async def checks(self, store: Store, redis: Redis) -> Mapping[str, str]:
        """For each store "ok", or what is wrong with it."""
        async with self._looking:
            if self._found is None or self._clock() >= self._found[0]:
                database, queue = await asyncio.gather(_database(store), _redis(redis))
                self._found = self._clock() + READINESS_KEPT_S, {"database": database, "redis": queue}
            return self._found[1]


async def _database(store: Store) -> str:
    try:
        return "ok" if await store.schema_is_current() else "the schema is not current; run `understudy migrate`"
    except StoreError as error:
        return str(error)


async def _redis(redis: Redis) -> str:
    try:
        await redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "Redis is unreachable; check REDIS_URL and that it is running"
    return "ok"
