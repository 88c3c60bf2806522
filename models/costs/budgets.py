"""Budgets: scope, period, balance, and the sentences about them. All amounts are in US dollars.

A batch has one budget for its lifetime, a tenant one per calendar month, a provider one per month and one per day
(UTC).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from understudy.models.config.settings import Settings
from understudy.models.queue import keys
from understudy.models.queue.lua_scripts import script_text

if TYPE_CHECKING:
    from redis.asyncio import Redis

TOLERANCE_USD = 1e-9
"""Tolerance for comparing sums of floats."""

UNKNOWN_USD = 1e12
"""The cost assumed for a call without a known price: more than any budget, so that no budget can be evaded by
choosing such a model."""

BATCH, TENANT, PROVIDER = "batch", "tenant", "provider"
FOR_LIFE = ""
"""In place of a period: a batch's budget has none."""

RESERVED = script_text("models/queue/leased.lua")


@dataclass(frozen=True, slots=True, order=True)
class BudgetKey:
    """A budget's scope in one period: a month such as `2026-11`, a day such as `2026-11-26`, or FOR_LIFE."""

    kind: str
    name: str
    period: str = FOR_LIFE

    @property
    def who(self) -> str:
        """The name shown to people: `tenant:acme`."""
        return f"{self.kind}:{self.name}"

    @property
    def key(self) -> str:
        """The name in Redis: `tenant:acme:2026-11`."""
        return f"{self.who}:{self.period}" if self.period else self.who

    @property
    def days(self) -> tuple[int, int]:
        """The first day of the period and the first day after it, as unix seconds // 86400."""
        first = date.fromisoformat(self.period if self.is_day else f"{self.period}-01")
        epoch = date(1970, 1, 1)
        return (first - epoch).days, (self.resets - epoch).days

    @property
    def is_day(self) -> bool:
        return self.period.count("-") == 2

    @property
    def resets(self) -> date:
        """The first day of the next period."""
        if self.is_day:
            return date.fromisoformat(self.period) + timedelta(days=1)
        return (date.fromisoformat(f"{self.period}-01") + timedelta(days=31)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Balance:
    """The state of a budget: its limit (including grants), the amount spent, and the amount reserved by calls in
    flight."""

    limit_usd: float
    spent_usd: float
    reserved_usd: float = 0.0

    @property
    def left_usd(self) -> float:
        """Limit minus spent, ignoring reservations."""
        return self.limit_usd - self.spent_usd

    @property
    def free_usd(self) -> float:
        return self.left_usd - self.reserved_usd


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """A budget as recorded in the ledger; `base_usd` is the amount that a grant adds again. None: no budget."""

    base_usd: float | None
    granted_usd: float
    spent_usd: float

    @property
    def balance(self) -> Balance | None:
        return None if self.base_usd is None else Balance(self.base_usd + self.granted_usd, self.spent_usd)


def of_batch(batch_id: str) -> BudgetKey:
    return BudgetKey(BATCH, batch_id)


def of_tenant(name: str, at: float) -> BudgetKey:
    return BudgetKey(TENANT, name, _day(at)[:7])


def of_provider(settings: Settings, name: str, at: float) -> dict[BudgetKey, float]:
    """A provider's budgets at this time, with their amounts. Most providers have none."""
    provider = settings.providers.get(name)
    if provider is None:
        return {}
    day = _day(at)
    budgets = {day: provider.budget_usd_per_day, day[:7]: provider.budget_usd_per_month}
    return {BudgetKey(PROVIDER, name, period): usd for period, usd in budgets.items() if usd is not None}


async def reserved_usd(redis: "Redis", subject: BudgetKey) -> float:
    """The amount of a budget reserved by calls in flight. Raises RedisError, OSError."""
    return float(await redis.eval(RESERVED, 1, keys.balance(subject.key), ""))


def covers(usd: float, room_usd: float) -> bool:
    """Whether `room_usd` is enough for an expected cost of `usd`."""
    return usd <= room_usd + TOLERANCE_USD


def amount(usd: float) -> str:
    """`10.00`; below one dollar, significant digits: `0.0098`, `0.000012`."""
    if abs(usd) >= 1:
        return f"{usd:,.2f}"
    text = f"{usd:.4f}" if abs(usd) >= 0.001 or not usd else f"{Decimal(f'{usd:.2g}'):f}"
    whole, _, digits = text.partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"


def reached(subject: BudgetKey, balance: Balance, job_usd: float, *, amounts: bool = True) -> str:
    """One sentence: the amount spent, the expected cost of the next job, and when and how work resumes.

    Without `amounts` it is the same for every job: the reason of many that were put back.
    """
    spent, limit, cost = (amount(usd) for usd in (balance.spent_usd, balance.limit_usd, job_usd))
    if job_usd >= UNKNOWN_USD:
        return _unpriced(subject, limit)
    if subject.kind == BATCH:
        said = f": {spent} is spent, and the next job would cost about {cost}" if amounts else ""
        return f"its budget of {limit} USD is reached{said}; `understudy resume {subject.name}` grants it again"
    who, when = f"{subject.kind} {subject.name}", "today" if subject.is_day else "this month"
    resume = f"with `understudy resume {subject.who}`"
    if not covers(job_usd, balance.limit_usd):
        what = f"the {cost} that its next job would cost" if amounts else "the next job would cost"
        return f"{who} may spend {limit} USD {when}, less than {what}; raise the budget, or grant it again {resume}"
    following = f", and the next job would cost about {cost}" if job_usd else ""
    said = f"{spent} of {limit} USD {when}{following}" if amounts else f"its {limit} USD {when}"
    return f"{who} has spent {said}; resumes {subject.resets.day} {subject.resets:%B} (UTC) or {resume}"


def _unpriced(subject: BudgetKey, limit: str) -> str:
    """The same `resume` continues the batch as one whose budget is spent."""
    remedy = "the operator writes it under [providers.NAME.prices], 0 if it is free, and restarts the workers"
    if subject.kind == BATCH:
        said = f"its budget of {limit} USD cannot see what the next job costs: no price of its model is known"
        return f"{said}; {remedy}, then `understudy resume {subject.name}`"
    said = f"{subject.kind} {subject.name} may spend {limit} USD, and no price of the next job's model is known"
    return f"{said}; {remedy}"


def in_use(subject: BudgetKey, balance: Balance) -> str:
    """One sentence for a job that waits until the cost of the calls in flight is known."""
    return f"calls in flight reserve the rest of the budget of {subject.who}, {amount(balance.limit_usd)} USD"


def to_be_granted(known: Mapping[BudgetKey, BudgetRecord]) -> list[BudgetKey]:
    """The budgets of one tenant or provider that `resume` refers to.

    These are all with less than 1% left or, if there are none, the one with the least left.
    """
    left = {
        subject: each.balance.left_usd / each.base_usd
        for subject, each in known.items()
        if each.base_usd and each.balance
    }
    spent = [subject for subject, part in left.items() if part < 0.01]
    return spent or ([min(left, key=lambda subject: left[subject])] if left else [])


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
