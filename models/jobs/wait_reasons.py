"""Why a job waits, as its row says it: a sentence that workers write, and what can be read out of it again.

requests per minute are used up at openai/gpt-4o-mini (account openai:main)
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

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
"""Holds beside the limiter's: a person must fix a credential; others are staged first; data rules allow no step; the
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


SENTENCE = re.compile(
    r"(?P<reason>[^:]+?) at (?P<provider>[^/\s:]+)/(?P<model>\S+?)(?: \(account (?P<account>\S+)\))?", re.DOTALL
)


def reason_at(reason: str, provider: str, model: str, account: str) -> str:
    return f"{reason} at {provider}/{model} (account {account})"


def failed_at(cls: FailureClass, provider: str, model: str, account: str | None) -> str:
    """Why a job waits whose own call failed: in the words of those that are held back because others' calls did."""
    held_back_as = "cooldown" if cls is FailureClass.RATE_LIMIT else "breaker" if cls.traits.transient else ""
    words = HOLD_WORDS.get(held_back_as, str(cls))
    return reason_at(words, provider, model, account) if account else f"{words} at {provider}/{model}"


def waiting_until(sentence: str, until: float | None) -> Waiting:
    """What a put-back job waits for. A sentence that names no deployment is kept whole."""
    found = SENTENCE.fullmatch(sentence)
    if found is None:
        return Waiting(sentence, PUT_BACK, until=until)
    reason = f"{found['reason']} at {found['provider']}/{found['model']}"
    return Waiting(reason, PUT_BACK, found["provider"], found["model"], found["account"], until)
