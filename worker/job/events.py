"""What may happen at a step of a chain, and what a job may do next: the values that `decide` takes and returns."""

from dataclasses import dataclass
from random import Random

from understudy.models.failure import Failure
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.routing.chain import Chain
from understudy.models.routing.suitability import WhyNot
from understudy.models.state import Priority
from understudy.worker.budgets.fallback_quota import QuotaUsedUp
from understudy.worker.budgets.reservations import InsufficientBudget
from understudy.worker.limits.credentials import Absence
from understudy.worker.limits.grants import Refusal
from understudy.worker.providers.base import CannotExpress


@dataclass(frozen=True, slots=True)
class EveryKeyRefused:
    """Each credential of the step was rejected for this job, and nothing is proved against them: the cause may be this
    job. `failure` is the last rejection; None: it was under an earlier claim."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The call was not made: it may not wait, or its deployment was cooled in the meantime."""


@dataclass(frozen=True, slots=True)
class ShareUsedUp:
    """The batch has used up its share of fallbacks: only the step `primary`, by index, may still answer this job."""

    primary: int


Event = (
    Failure  # a provider was called and did not answer
    | Refusal  # the limiter did not let the call start
    | InsufficientBudget  # a budget did not let it start
    | QuotaUsedUp  # it is unknown for now whether a later step may answer
    | ShareUsedUp
    | Absence  # no credential of the step can be used
    | EveryKeyRefused
    | WhyNot  # the step may not be used: a data rule, or a property of the request
    | CannotExpress  # the step's protocol cannot express the request
    | NotStarted
)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on besides the event itself. `now` in unix seconds. `alone`: the job belongs to no batch.
    `account` and `key` (its name) are those of the call, if one was made."""

    chain: Chain
    priority: Priority
    now: float
    rng: Random
    alone: bool = False
    account: str | None = None
    key: str = ""

    @property
    def patience_s(self) -> float:
        return self.chain.patience_for(self.priority)


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Retry the same step, after a pause."""

    after_s: float = 0.0
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class MoveOn:
    """Continue with the step that the new progress points at."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """Return to the ledger until a given time; costs no attempt."""

    until: float
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class Fail:
    """Failed for good; the error is in the progress (`first_error`)."""


Verdict = TryAgain | MoveOn | PutBack | Fail
