"""Which batch is paused, and how to resume it."""

from collections.abc import Iterable
from typing import Any

from understudy.models.jobs.pause_reasons import BY_FAILURES, PauseKind
from understudy.models.records import BatchView
from understudy.models.state import OPEN_BATCH_STATES


def held_one(views: Iterable[BatchView]) -> BatchView | None:
    """The first paused batch. A batch that was cancelled while paused does not count."""
    return next((view for view in views if view.paused and view.state in OPEN_BATCH_STATES), None)


def resumed(
    before: BatchView | None, total_usd: float | None, model: str | None, chain: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Old and new values of a resumed batch, for the audit log. `total_usd`: its new budget, if changed."""
    old: dict[str, Any] = {"paused": before.paused if before else None}
    new: dict[str, Any] = {"paused": None}
    if total_usd is not None:
        old["budget_usd"], new["budget_usd"] = before.budget_usd if before else None, total_usd
    route = {"model": model, "chain": chain}
    return old, new | {word: name for word, name in route.items() if name is not None}


def how_to_go_on(held: BatchView) -> str:
    if held.pause_kind is PauseKind.STOPPED:
        return f"stopped; repeat the run or use `understudy resume {held.id}` to continue it"
    goes_on = f"`understudy resume {held.id}` resumes it"
    if held.pause_kind not in BY_FAILURES:
        return goes_on
    return f"`understudy attempts {held.id}` shows the answers; once the cause is fixed, {goes_on}"
