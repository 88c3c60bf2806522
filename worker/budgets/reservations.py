"""Reserves money before a call starts and settles it afterwards, for every budget that covers the call.

Balances are in Redis (`worker/budgets/*.lua`), so that the whole fleet shares them in one atomic step; a worker's
reservations end with its lease (`worker.leases`). The ledger is the truth: a balance unknown to Redis is loaded from
there, and the planner compares them every second (`worker.planner.budget_sync`).
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import (
    PROVIDER,
    TOLERANCE_USD,
    Balance,
    BudgetKey,
    BudgetRecord,
    in_use,
    of_batch,
    of_provider,
    of_tenant,
    reached,
)
from understudy.models.jobs.execution import StartedJob
from understudy.models.queue import keys
from understudy.models.store import StoreOutage
from understudy.worker.leases import Leases
from understudy.worker.redis_scripts import Script

RESERVE = Script.load("worker/budgets/reserve.lua")
SETTLE = Script.load("worker/budgets/settle.lua")
LOAD = Script.load("worker/budgets/load.lua")
READ = Script.load("worker/budgets/read.lua")

Read = Callable[[Sequence[BudgetKey], Mapping[BudgetKey, float]], Awaitable[Mapping[BudgetKey, BudgetRecord]]]
"""The ledger's records of some budgets; those of providers are passed in with their amounts."""


class Shortage(StrEnum):
    """Why money was refused."""

    SPENT = "spent"  # no call in flight can release enough
    RESERVED = "reserved"  # calls in flight reserve the rest
    UNKNOWN = "unknown"  # neither Redis nor the ledger is available


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money reserved for one call."""

    subjects: tuple[BudgetKey, ...]
    usd: float


@dataclass(frozen=True, slots=True)
class InsufficientBudget:
    """No money was reserved. `usd` is the expected cost of the call."""

    subject: BudgetKey
    balance: Balance
    usd: float
    why: Shortage

    @property
    def is_of_provider(self) -> bool:
        return self.subject.kind == PROVIDER

    @property
    def reason(self) -> str:
        return self._reason(amounts=True)

    @property
    def waits(self) -> str:
        """The reason stored with a job that is put back: many are, and the amounts may differ for the next."""
        return self._reason(amounts=False)

    def _reason(self, *, amounts: bool) -> str:
        if self.why is Shortage.SPENT:
            return reached(self.subject, self.balance, self.usd, amounts=amounts)
        if self.why is Shortage.RESERVED:
            return in_use(self.subject, self.balance)
        return f"the ledger is unavailable, so the budget left is unknown for {self.subject.who}"


class Budgets:
    """One worker's operations on the balances."""

    def __init__(
        self,
        settings: Settings,
        leases: Leases,
        read: Read,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._leases = leases
        self._read = read
        self._clock = clock
        self._providers = {name for name in settings.providers if of_provider(settings, name, 0.0)}
        self._reserved: Counter[str] = Counter()  # by key in Redis
        self._loading = asyncio.Lock()
        leases.count(self._amounts)

    def covering(self, job: StartedJob, provider: str) -> tuple[BudgetKey, ...]:
        """The budgets that pay for a job's call at a provider. Most jobs have none."""
        if not (job.batch_budget or job.tenant_budget or provider in self._providers):
            return ()
        at = self._clock()
        own = [of_batch(job.batch_id)] if job.batch_budget else []
        if job.tenant_budget:
            own.append(of_tenant(job.tenant, at))
        return (*own, *self.of_providers([provider], at))

    def now(self) -> float:
        """The time that determines the month and day of a call."""
        return self._clock()

    def of_providers(self, names: Sequence[str] | None = None, at: float | None = None) -> dict[BudgetKey, float]:
        """Today's budgets of some providers, or of all, with their configured amounts."""
        now = self._clock() if at is None else at
        named = self._providers if names is None else self._providers.intersection(names)
        return {each: usd for name in sorted(named) for each, usd in of_provider(self._settings, name, now).items()}

    async def reserve(self, subjects: Sequence[BudgetKey], usd: float) -> Reservation | InsufficientBudget:
        """Reserve the expected cost of a call in all of these balances, or in none. Raises RedisUnavailable."""
        asked = tuple(subjects)
        refused = await self._reserve(asked, usd)
        if refused is not None and refused.why is Shortage.UNKNOWN:
            async with self._loading:
                refused = await self._reserve(asked, usd)
                if refused is not None and refused.why is Shortage.UNKNOWN:
                    try:
                        asked = await self.load(asked)
                    except StoreOutage:
                        return refused
                    await self._leases.beat()
                    refused = await self._reserve(asked, usd)
        return refused or Reservation(asked, usd)

    async def _reserve(self, subjects: Sequence[BudgetKey], usd: float) -> InsufficientBudget | None:
        if not subjects:
            return None
        names, leases = _names(subjects), self._leases
        async with leases.changing(names):
            reply = await leases.scripts.run(RESERVE, names, [leases.worker_id, leases.lease_ms, usd])
            if reply[0] == 0:
                self._reserved.update(dict.fromkeys(names, usd))
                return None
        index, why, *amounts = reply
        return InsufficientBudget(subjects[index - 1], Balance(*map(float, amounts)), usd, Shortage(why.decode()))

    async def settle(self, reserved: Reservation, cost_usd: float) -> None:
        """The call has ended, or was never made: release its reservation. Raises RedisUnavailable."""
        if not reserved.subjects:
            return
        names, leases = _names(reserved.subjects), self._leases
        async with leases.changing(names, released=lambda: self._reserved.subtract(dict.fromkeys(names, reserved.usd))):
            await leases.scripts.run(SETTLE, names, [leases.worker_id, leases.lease_ms, reserved.usd, cost_usd])

    def _amounts(self) -> Mapping[str, float]:
        self._reserved = Counter({name: usd for name, usd in self._reserved.items() if abs(usd) > TOLERANCE_USD})
        return self._reserved

    async def load(self, subjects: Sequence[BudgetKey]) -> tuple[BudgetKey, ...]:
        """Write the ledger's records of these budgets to Redis; returns those that (still) are budgets.

        Raises StoreBusy, StoreUnavailable, RedisUnavailable.
        """
        of_providers = self.of_providers()
        known = await self._read(
            [each for each in subjects if each.kind != PROVIDER],
            {each: of_providers[each] for each in subjects if each in of_providers},
        )
        balances = {subject: each.balance for subject, each in known.items() if each.balance is not None}
        numbers = [number for balance in balances.values() for number in (balance.limit_usd, balance.spent_usd)]
        if balances:
            await self._leases.scripts.run(LOAD, _names(balances), numbers)
        return tuple(subject for subject in subjects if subject in balances)

    async def read(self, subjects: Sequence[BudgetKey]) -> dict[BudgetKey, tuple[Balance, float | None]]:
        """The balances known to Redis, each with the expected cost of the call refused last."""
        if not subjects:
            return {}
        reply = await self._leases.scripts.run(READ, _names(subjects), [])
        rows = zip(subjects, reply[0::4], reply[1::4], reply[2::4], reply[3::4], strict=True)
        return {
            subject: (Balance(float(limit), float(spent), float(reserved)), float(short) if short else None)
            for subject, limit, spent, reserved, short in rows
            if limit
        }


def _names(subjects: Iterable[BudgetKey]) -> list[str]:
    return [keys.balance(each.key) for each in subjects]
