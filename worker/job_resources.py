"""Dependencies that all jobs of a worker share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from understudy.models.costs.pricing import Pricing
from understudy.models.memory_room import Headroom
from understudy.models.schemas.json_schema import SchemaTurns
from understudy.worker.budgets.fallback_quota import FallbackQuota
from understudy.worker.budgets.reservations import Budgets
from understudy.worker.job.memory import ANSWER_BYTES
from understudy.worker.job.step_selection import NearlyDone, StepSelection
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.estimates import Estimates, ExpectedCosts
from understudy.worker.limits.header_periods import AdvertisedPeriods
from understudy.worker.limits.limiter import Limiter
from understudy.worker.providers.client import ProviderClient


@dataclass(frozen=True, slots=True)
class JobResources:
    """Built once per worker."""

    fleet: CredentialPool
    limiter: Limiter
    client: ProviderClient
    pricing: Pricing
    costs: ExpectedCosts
    budgets: Budgets
    choice: StepSelection
    fallback_quota: FallbackQuota
    tails: NearlyDone
    clock: Callable[[], float]
    rng: Random
    estimates: Estimates = field(default_factory=Estimates)
    schemas: SchemaTurns = field(default_factory=SchemaTurns)
    periods: AdvertisedPeriods = field(default_factory=AdvertisedPeriods)
    answer_room: Headroom = field(default_factory=lambda: Headroom(ANSWER_BYTES))
