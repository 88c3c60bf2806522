"""What a job or a batch waits for."""

from typing_extensions import TypedDict

from understudy.models.jobs.wait_reasons import WHO_CAN_HELP, Helper, Waiting
from understudy.models.objects.shapes import described


@described
class WaitingObject(TypedDict):
    reason: str
    """One sentence."""
    hold: str
    """A limit (`requests`, `tokens`, `in_flight`, `cooldown`, `breaker` and others), `credential`, `rules`, `budget`,
    `turn`; `put_back`: every line waits for its own start time; `worker`, `planner`, `queue`: nothing works on it."""
    provider: str | None
    model: str | None
    account: str | None
    until: float | None
    """Unix seconds; null if unknown."""
    who_can_help: Helper | None
    """Who has to act to end the wait: the operator of Understudy or the owner of the work. null: it ends by itself."""


def waiting_object(waiting: Waiting | None) -> WaitingObject | None:
    if waiting is None:
        return None
    return {
        "reason": waiting.reason,
        "hold": waiting.hold,
        "provider": waiting.provider,
        "model": waiting.model,
        "account": waiting.account,
        "until": waiting.until,
        "who_can_help": WHO_CAN_HELP.get(waiting.hold),
    }
