"""Why a job or a batch waits: the kinds, and what workers write into the row of a job that they put back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, Literal

import orjson

from understudy.models.failure import FailureClass
from understudy.models.records import Waiting

HOLD_WORDS = {
    "requests": "requests per minute are used up",
    "tokens": "tokens per minute are used up",
    "in_flight": "all calls that may be in flight are",
    "day": "the limit of the day is used up",
    "starting": "the first calls find out what it takes",
    "cooldown": "cooling after a refusal",
    "breaker": "resting after failures",
}
"""What keeps a call from starting, by the limiter's name for it."""

PUT_BACK = "put_back"
"""The `hold` of what waits for a time that a worker has set."""

CREDENTIAL, TURN, RULES, BUDGET, PAUSED = "credential", "turn", "rules", "budget", "paused"
"""Holds besides the limiter's: a person must fix a credential; others are staged first; data rules allow no step; the
money of a tenant or provider is spent; the batch is held."""

WORKER = "worker"
"""The hold of everything while no worker runs."""

OPERATOR: Final = "operator"
OWNER: Final = "owner"
Helper = Literal["operator", "owner"]

WHO_CAN_HELP: Mapping[str, Helper] = {
    **{CREDENTIAL: OPERATOR, RULES: OPERATOR, BUDGET: OPERATOR, WORKER: OPERATOR},
    PAUSED: OWNER,
}
"""Whose act ends a wait that time does not end: of who runs Understudy, or of who submitted the work."""


def no_credential(provider: str, cls: FailureClass | None) -> str:
    """Why a provider cannot be asked at all: what its keys were refused for."""
    if cls is FailureClass.QUOTA:
        return f"no key of {provider} has money left; it goes on when one has"
    if cls is FailureClass.CREDENTIAL:
        return f"no key of {provider} is accepted; it goes on when one is fixed"
    return f"no key of {provider} can be used until someone fixes it"


def put_back_for(reason: str) -> Waiting:
    """The wait of a job that a worker puts back, for a reason that names no deployment."""
    return Waiting(reason, PUT_BACK)


GIVEN_BACK = put_back_for("given back by a worker that stopped")


def put_back_at(reason: str, provider: str, model: str, account: str | None) -> Waiting:
    """The wait of a job that a worker puts back because of one deployment."""
    return Waiting(f"{reason} at {provider}/{model}", PUT_BACK, provider, model, account)


def failed_at(cls: FailureClass, provider: str, model: str, account: str | None) -> Waiting:
    """Why a job waits whose own call failed: in the words of those that are held back because others' calls did."""
    held_back_as = "cooldown" if cls is FailureClass.RATE_LIMIT else "breaker" if cls.traits.transient else ""
    return put_back_at(HOLD_WORDS.get(held_back_as, str(cls)), provider, model, account)


def as_json(waiting: Waiting) -> str:
    """The document of a row; fields that are None are left out."""
    return orjson.dumps({name: value for name, value in asdict(waiting).items() if value is not None}).decode()


def from_json(document: str | None, until: float | None = None) -> Waiting | None:
    """Reads the document of a row. `until`: when its job may start."""
    return None if document is None else Waiting(**orjson.loads(document) | {"until": until})
