"""Budgets on the command line: what is spent, and the grants of `resume`."""

from collections.abc import Mapping

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import (
    PROVIDER,
    TENANT,
    BudgetKey,
    BudgetRecord,
    amount,
    of_provider,
    of_tenant,
    to_be_granted,
)
from understudy.models.errors import WrongUse
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.views import BatchView
from understudy.models.state import OPEN_BATCH_STATES
from understudy.models.store import Store

WITH_PERIOD = (TENANT, PROVIDER)


def is_subject(given: str) -> bool:
    """`tenant:NAME` or `provider:NAME`: no batch has such an id."""
    return given.partition(":")[0] in WITH_PERIOD


async def grant(store: Store, settings: Settings, given: str, actor: str) -> list[str]:
    """Grant a tenant's or provider's budget again, for the current period. Returns sentences with the new totals.

    Raises WrongUse if there is no budget to grant, StoreError.
    """
    kind, _, name = given.partition(":")
    at = await store.now()
    if kind == PROVIDER:
        known = await store.budgets.read([], of_provider(settings, name, at))
        lacks = f"provider '{name}' has no budget; set budget_usd_per_day or budget_usd_per_month in [providers.{name}]"
    else:
        known = await store.budgets.read([of_tenant(name, at)])
        lacks = f"tenant '{name}' has no budget; set one with `understudy tenants set {name} --usd-per-month`"
    granted = to_be_granted(known)
    if not granted:
        raise WrongUse(lacks)
    for subject in granted:
        base_usd = known[subject].base_usd or 0.0
        before_usd = base_usd + known[subject].granted_usd
        await store.budgets.grant(subject, base_usd)
        whose = subject.name if subject.kind == TENANT else ""
        old, new = {"may_spend_usd": before_usd}, {"may_spend_usd": before_usd + base_usd}
        await store.audit.record(actor, whose, "budget.grant", subject.key, old, new)
    return [_said(subject, known) for subject in granted]


def _said(subject: BudgetKey, known: Mapping[BudgetKey, BudgetRecord]) -> str:
    before = known[subject]
    base, period = before.base_usd or 0.0, "today" if subject.is_day else "this month"
    total = base + before.granted_usd + base
    return (
        f"granted {subject.kind} {subject.name} another {amount(base)} USD for {period}: "
        f"the budget is now {amount(total)} USD, of which {amount(before.spent_usd)} are spent"
    )


def spent_its_budget(view: BatchView) -> bool:
    """Whether the batch is paused because its budget is spent, until `resume`."""
    return view.state in OPEN_BATCH_STATES and view.pause_kind is PauseKind.BUDGET
