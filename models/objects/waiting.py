"""What a job or a batch waits for, as both show it."""

from typing_extensions import TypedDict

from understudy.models.jobs.wait_reasons import WHO_CAN_HELP, Helper
from understudy.models.objects.shapes import described
from understudy.models.records import Waiting


@described
class WaitingObject(TypedDict):
    reason: str
    """A sentence."""
    hold: str
    """A limit (`requests`, `tokens`, `in_flight`, `cooldown`, `breaker` and others), `credential`, `rules`, `budget`,
    `turn`; `put_back`: every line waits for its time; `worker`, `planner`, `queue`: nobody works."""
    provider: str | None
    model: str | None
    account: str | None
    until: float | None
    """Unix seconds; null when nobody can tell."""
    who_can_help: Helper | None
    """Whose act ends the wait: of who runs Understudy, or of who submitted the work. Null: time does."""


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
