"""Wait reasons of jobs and batches: the kinds, and what workers store with a job that they put back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

import orjson

from understudy.models.failure import FailureClass


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a batch waits for, as the planner saw it a moment ago, or a job, as the worker that put it back wrote it.

    `hold` is the kind: one of the limiter's (`requests`, `tokens`, `in_flight`, `cooldown`, `breaker` and others), or
    `credential` (a person must fix one), `rules` (data rules allow no step), `budget`, `turn` (others go first),
    `put_back` (the time of the job has not come).
    `reason` is a readable sentence. `until` is the earliest time at which it may continue; None if unknown.
    """

    reason: str
    hold: str
    provider: str | None = None
    model: str | None = None
    account: str | None = None  # unique across providers, such as "openai:main"
    until: float | None = None

    @property
    def sentence(self) -> str:
        """For people, with the account and without `until`."""
        return f"{self.reason} (account {self.account})" if self.account else self.reason


HOLD_WORDS = {
    "requests": "requests per minute are used up",
    "tokens": "tokens per minute are used up",
    "in_flight": "the maximum number of calls is in flight",
    "day": "the daily limit is used up",
    "starting": "slow start: the first calls test its capacity",
    "cooldown": "cooling down after a refusal",
    "breaker": "resting after failures",
}
"""What keeps a call from starting, by the limiter's name for it."""

PUT_BACK = "put_back"
"""The `hold` of a job that waits until a time set by a worker."""

CREDENTIAL, TURN, RULES, BUDGET, PAUSED = "credential", "turn", "rules", "budget", "paused"
"""Holds other than the limiter's: a person must fix a credential; other jobs are staged first; data rules allow no
step; the budget of a tenant or provider is spent; the batch is paused."""

WORKER = "worker"
"""The hold of everything while no worker runs."""

OPERATOR: Final = "operator"
OWNER: Final = "owner"
Helper = Literal["operator", "owner"]

WHO_CAN_HELP: Mapping[str, Helper] = {
    **{CREDENTIAL: OPERATOR, RULES: OPERATOR, BUDGET: OPERATOR, WORKER: OPERATOR},
    PAUSED: OWNER,
}
"""Who must act to end a wait that does not end by itself: the operator of Understudy, or the owner of the work."""


def no_credential(provider: str, cls: FailureClass | None) -> str:
    """Why a provider has no usable key: the failure class of its keys."""
    if cls is FailureClass.QUOTA:
        return f"no key of {provider} has credit left; waiting until one has"
    if cls is FailureClass.CREDENTIAL:
        return f"no key of {provider} is accepted; waiting until one is fixed"
    return f"no key of {provider} can be used; waiting until one is fixed"


def put_back_for(reason: str) -> Waiting:
    """The wait of a job that a worker puts back, for a reason that names no deployment."""
    return Waiting(reason, PUT_BACK)


GIVEN_BACK = put_back_for("returned by a worker that stopped")


def put_back_at(reason: str, provider: str, model: str, account: str | None) -> Waiting:
    """The wait of a job that a worker puts back because of one deployment."""
    return Waiting(f"{reason} at {provider}/{model}", PUT_BACK, provider, model, account)


def failed_at(cls: FailureClass, provider: str, model: str, account: str | None) -> Waiting:
    """Why a job waits whose own call failed: the same sentence as for jobs held back because others' calls failed."""
    held_back_as = "cooldown" if cls is FailureClass.RATE_LIMIT else "breaker" if cls.traits.transient else ""
    return put_back_at(HOLD_WORDS.get(held_back_as, str(cls)), provider, model, account)


def as_json(waiting: Waiting) -> str:
    """The document of a row; fields that are None are left out."""
    return orjson.dumps({name: value for name, value in asdict(waiting).items() if value is not None}).decode()


def from_json(document: str | None, until: float | None = None) -> Waiting | None:
    """Reads the document of a row. `until`: when its job may start."""
    return None if document is None else Waiting(**orjson.loads(document) | {"until": until})
