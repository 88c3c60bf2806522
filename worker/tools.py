"""What running a job needs of the world."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from models.headroom import Headroom
from models.pricing import Pricing
from models.schema_turns import SchemaTurns
from worker.answer_room import ROOM_BYTES
from worker.budgets import Budgets
from worker.choice import Choice
from worker.costs import Costs
from worker.estimates import Estimates
from worker.fleet import Fleet
from worker.limits import Limiter
from worker.places import Places
from worker.providers.client import ProviderClient
from worker.tails import Tails
from worker.told_periods import ToldPeriods


@dataclass(frozen=True, slots=True)
class Tools:
    """Built once per worker."""

    fleet: Fleet
    limiter: Limiter
    client: ProviderClient
    pricing: Pricing
    costs: Costs
    budgets: Budgets
    choice: Choice
    places: Places
    tails: Tails
    clock: Callable[[], float]
    rng: Random
    estimates: Estimates = field(default_factory=Estimates)
    schemas: SchemaTurns = field(default_factory=SchemaTurns)
    periods: ToldPeriods = field(default_factory=ToldPeriods)
    answer_room: Headroom = field(default_factory=lambda: Headroom(ROOM_BYTES))
