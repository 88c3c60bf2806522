"""Prometheus metrics: counts from the ledger, the age of the queue, and the requests of this process.

The ledger metrics cover the whole fleet, and every API process exports the same values: scrape one process, or take the
maximum, never the sum. No metric contains a tenant, job or prompt. Since callers may use any model name, the first
SERIES_MAX models get their own series; the others share `OTHERS` of their provider.
"""

import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.models.store.metrics import Backlog
from understudy.producer.api.monitoring.limit_metrics import SERIES_MAX, LimitMetrics

KEPT_S = 5.0
"""Seconds between reads of the ledger, however often metrics are scraped."""

OTHERS = "other models"
"""Not a possible model name."""

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


class TimedRequests:
    """Measures the time until each route starts its response. Waiting requests take long by design."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def timed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                labels = (scope["method"], getattr(route, "path", "none"), str(message["status"]))
                scope["app"].state.context.metrics.requests.labels(*labels).observe(time.monotonic() - began)
            await send(message)

        await self._app(scope, receive, timed_send)
