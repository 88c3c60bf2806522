"""Why a job waits, as its row says it: a sentence that workers write, and what can be read out of it again.

requests per minute are used up at openai/gpt-4o-mini (account openai:main)
"""

import re
from typing import Any

from models.records import Waiting

PUT_BACK = "put_back"
"""The `hold` of what waits for a time that a worker has set."""

SENTENCE = re.compile(
    r"(?P<reason>[^:]+?) at (?P<provider>[^/\s:]+)/(?P<model>\S+?)(?: \(account (?P<account>\S+)\))?", re.DOTALL
)


def reason_at(reason: str, provider: str, model: str, account: str) -> str:
    return f"{reason} at {provider}/{model} (account {account})"


def waiting_until(sentence: str, until: float | None) -> Waiting:
    """What a put-back job waits for. A sentence that names no deployment is kept whole."""
    found = SENTENCE.fullmatch(sentence)
    if found is None:
        return Waiting(sentence, PUT_BACK, until=until)
    return Waiting(found["reason"], PUT_BACK, found["provider"], found["model"], found["account"], until)


def waiting_object(waiting: Waiting | None) -> dict[str, Any] | None:
    """As JSON shows it; times are unix seconds."""
    if waiting is None:
        return None
    return {
        "reason": waiting.reason,
        "hold": waiting.hold,
        "provider": waiting.provider,
        "model": waiting.model,
        "account": waiting.account,
        "until": waiting.until,
    }
