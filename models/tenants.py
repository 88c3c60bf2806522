"""Tenants: owners of jobs, with their limits and their usage."""

import re
from dataclasses import dataclass, field
from typing import Literal

from understudy.models.routing.data_rules import Rules, Tags

DEFAULT_TENANT = "default"
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)

MINUTE_S = 60

StoreContent = Literal["always", "until_delivered"]
"""How long prompts and answers are kept: until they are pruned, or until their owner has received the answers."""

NO_LIMIT = 2**63 - 1
"""For limits that apply unless an operator lifts them."""

CONTENT_KEPT_S = 3_600.0
"""After a delivery, so that its receiver may retry."""


LEAST_WEIGHT, MOST_WEIGHT = 0.01, 100.0
USUAL_WEIGHT = 1.0
"""Weights: shares among tenants, and among the batches of one tenant and priority."""


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """A limit that is None does not apply. A tenant without a row has none."""

    name: str
    jobs_per_minute: int | None = None
    queued_jobs: int | None = None
    usd_per_month: float | None = None
    weight: float = USUAL_WEIGHT  # its share when tenants take turns
    store_content: StoreContent | None = None  # None: the installation's setting
    require: Tags = field(default_factory=dict)  # data rules of all its jobs
    forbid: Tags = field(default_factory=dict)
    stored_bytes: int | None = None  # NO_LIMIT: unlimited; None: the installation's setting
    open_batches: int | None = None  # the same
    allow: tuple[str, ...] | None = None  # the chains and models it may use (`models.routing.allowlist`); None: all

    @property
    def rules(self) -> Rules:
        """The rules for every job accepted from it."""
        payer = None if self.usd_per_month is None else f"tenant '{self.name}'"
        return Rules(self.require, self.forbid, self.allow, payer)


@dataclass(frozen=True, slots=True)
class TenantStore:
    """What is stored for a tenant: uploads, rows, prompts and answers, and unfinished batches."""

    stored_bytes: int = 0
    open_batches: int = 0


@dataclass(frozen=True, slots=True)
class TenantUse:
    """A tenant's limits and its usage according to the ledger. Minutes are unix seconds // 60."""

    limits: TenantLimits
    minute: int
    accepted_this_minute: int = 0
    accepted_last_minute: int = 0
    usd_this_month: float = 0.0
    usd_granted: float = 0.0  # on top of its budget, for this month


def weight_of(text: str) -> float:
    """Parse a weight written by a person. Raises ValueError with one sentence."""
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ValueError(f"'{text[:40]}' is not a valid weight; use a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}")
    return weight
