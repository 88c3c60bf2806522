"""Which batch is held, and what a person does about it."""

from collections.abc import Iterable
from typing import Any

from understudy.models.jobs.pause_reasons import RUN_STOPPED, is_by_failures
from understudy.models.records import BatchView
from understudy.models.state import OPEN_BATCH_STATES


def held_one(views: Iterable[BatchView]) -> BatchView | None:
    """The first of these batches that is held. One that was cancelled while it was held is not any more."""
    return next((view for view in views if view.paused and view.state in OPEN_BATCH_STATES), None)


def resumed(
    before: BatchView | None, total_usd: float | None, model: str | None, chain: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What letting a batch go on changed of it: as it was, and as it is. `total_usd`: what it may spend, if new."""
    old: dict[str, Any] = {"paused": before.paused if before else None}
    new: dict[str, Any] = {"paused": None}
    if total_usd is not None:
        old["budget_usd"], new["budget_usd"] = before.budget_usd if before else None, total_usd
    route = {"model": model, "chain": chain}
    return old, new | {word: name for word, name in route.items() if name is not None}


def how_to_go_on(batch_id: str, paused: str) -> str:
    if paused == RUN_STOPPED:
        return f"stopped; the same run or `understudy resume {batch_id}` continues it"
    goes_on = f"`understudy resume {batch_id}` lets it go on"
    if not is_by_failures(paused):
        return goes_on
    return f"`understudy attempts {batch_id}` shows what was answered; once it is mended, {goes_on}"
