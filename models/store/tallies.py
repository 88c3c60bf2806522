"""Counters stored next to the rows, so that a batch of a million jobs is summed in a few reads."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.jobs.execution import AttemptRecord, ResultRecord
from understudy.models.store.database.disk_space import text_bytes
from understudy.models.store.sql import BulkInsert, provider_tally, tally, tenant_tally, whole

ANSWERED = "answered"
OF_ATTEMPTS = "attempt"
OF_JOBS = "job"
TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
SUMS = ("count", "fallbacks", *TOKENS, "cost_usd", "unpriced", "bytes")

ADD_TALLIES = BulkInsert(tally, conflict="added", adds=SUMS)
"""Add to the counters of this writer and minute."""

SPENT, SPENT_PERIOD_S = "spent", 86_400
ACCEPTED, ACCEPTED_PERIOD_S = "accepted", 60

ADD_TENANT_TALLIES = BulkInsert(tenant_tally, conflict="added", adds=("count", "cost_usd"))
"""Add to a tenant's usage in a period."""

ADD_PROVIDER_TALLIES = BulkInsert(provider_tally, conflict="added", adds=("cost_usd",))
"""Add to the cost of a provider's calls on a day."""


def answer_bytes(result: ResultRecord) -> int:
    """Stored bytes of its body and its error."""
    return text_bytes(result.body) + (0 if result.error is None else len(orjson.dumps(result.error)))


UPKEEP = "upkeep"
"""The writer of everything that ends without a worker."""


class Tallies:
    """What one transaction adds to the counters. Each `writer` has its own rows, so writers do not block each other."""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._rows: dict[tuple[object, ...], dict[str, Any]] = {}
        self._of_tenants: dict[tuple[object, ...], dict[str, Any]] = {}
        self._of_providers: dict[tuple[object, ...], dict[str, Any]] = {}

    def job_ended(self, batch_id: str, state: str, at: float, result: ResultRecord | None = None) -> None:
        row = self._row(
            batch_id, at, OF_JOBS, (result and result.provider) or "", (result and result.model) or "", state
        )
        row["count"] += 1
        row["fallbacks"] += bool(result and result.fallback_index)
        row["bytes"] += answer_bytes(result) if result else 0

    def jobs_ended(self, rows: Iterable[Row[Any]]) -> None:
        """From rows (id, batch_id, state, ended_at) that ended without a result."""
        for each in rows:
            self.job_ended(each.batch_id, each.state, each.ended_at)

    def attempted(self, batch_id: str, tenant: str, attempt: AttemptRecord, at: float) -> None:
        row = self._row(batch_id, at, OF_ATTEMPTS, attempt.provider, attempt.model, str(attempt.cls or ANSWERED))
        row["count"] += 1
        row["input_tokens"] += whole(attempt.input_tokens)
        row["output_tokens"] += whole(attempt.output_tokens)
        row["cached_tokens"] += whole(attempt.cached_tokens)
        row["reasoning_tokens"] += whole(attempt.reasoning_tokens)
        row["cost_usd"] += attempt.cost_usd
        row["unpriced"] += attempt.unpriced
        if attempt.cost_usd:
            self._add_tenant(tenant, SPENT, int(at // SPENT_PERIOD_S), 1, attempt.cost_usd)
            self._add_provider(attempt.provider, int(at // SPENT_PERIOD_S), attempt.cost_usd)

    def accepted(self, tenant: str, jobs: int, at: float) -> None:
        self._add_tenant(tenant, ACCEPTED, int(at // ACCEPTED_PERIOD_S), jobs, 0.0)

    async def write(self, connection: AsyncConnection) -> None:
        # In the same order everywhere: two writers of the same rows cannot deadlock.
        rows: Sequence[Mapping[str, Any]] = [self._rows[key] for key in sorted(self._rows, key=repr)]
        await ADD_TALLIES.run(connection, rows)
        await ADD_TENANT_TALLIES.run(connection, [self._of_tenants[key] for key in sorted(self._of_tenants, key=repr)])
        of_providers = [self._of_providers[key] for key in sorted(self._of_providers, key=repr)]
        await ADD_PROVIDER_TALLIES.run(connection, of_providers)

    def _add_tenant(self, tenant: str, kind: str, period: int, count: int, cost_usd: float) -> None:
        names = {"tenant": tenant, "writer": self._writer, "kind": kind, "period": period}
        row = self._of_tenants.setdefault(tuple(names.values()), {**names, "count": 0, "cost_usd": 0.0})
        row["count"] += count
        row["cost_usd"] += cost_usd

    def _add_provider(self, provider: str, day: int, cost_usd: float) -> None:
        names = {"provider": provider, "writer": self._writer, "day": day}
        row = self._of_providers.setdefault(tuple(names.values()), {**names, "cost_usd": 0.0})
        row["cost_usd"] += cost_usd

    def _row(self, batch_id: str, at: float, kind: str, provider: str, model: str, outcome: str) -> dict[str, Any]:
        minute = int(at // 60)
        names = {
            "batch_id": batch_id,
            "worker_id": self._writer,
            "minute": minute,
            "kind": kind,
            "provider": provider,
            "model": model,
            "outcome": outcome,
        }
        return self._rows.setdefault(tuple(names.values()), {**names, **dict.fromkeys(SUMS, 0)})
