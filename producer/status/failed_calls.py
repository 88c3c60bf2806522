"""Error messages of failed calls: one example per failure class, and how to list the others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.models.failure import FailureClass
from understudy.models.jobs.views import BatchView
from understudy.models.objects.attempt import AttemptObject
from understudy.models.store import Store

MOST_EXAMPLES = 5
MOST_WORDS = 200
"""Characters of a provider's message that are shown."""


def in_a_line(message: str | None) -> str:
    """A provider's message on one line, truncated."""
    words = " ".join((message or "").split())
    return words if len(words) <= MOST_WORDS else f"{words[: MOST_WORDS - 1]}…"


def said(call: Mapping[str, Any]) -> str:
    """How a call failed: `bad_request 400: Unsupported parameter`."""
    status, words = f" {call['status']}" if call["status"] else "", in_a_line(call["message"])
    return f"{call['failure']}{status}{f': {words}' if words else ''}"


@dataclass(frozen=True, slots=True)
class Failures:
    """The calls that failed with one failure class, and the latest of them; None: it was pruned."""

    cls: FailureClass
    calls: int
    example: Mapping[str, Any] | None


async def most_frequent_failures(store: Store, views: Sequence[BatchView]) -> list[Failures]:
    """Of a batch and its retries, the most frequent first. Raises StoreError."""
    counts: Counter[str] = Counter()
    for view in views:
        for tally in view.by_deployment:
            counts.update(tally.failures)
    most = [(FailureClass(name), count) for name, count in counts.most_common(MOST_EXAMPLES)]
    return [Failures(cls, count, await _newest(store, views, cls)) for cls, count in most]


async def failure_examples(store: Store, views: Sequence[BatchView]) -> list[str]:
    """The most frequent failures of a batch and its retries as text, with one example each. Raises StoreError."""
    found = await most_frequent_failures(store, views)
    calls = [each.example for each in found if each.example]
    lines = [f"for example at {call['provider']}/{call['model']}: {said(call)}" for call in calls]
    if lines:
        look = f"`understudy attempts {views[-1].id}`"
        lines.append(f"{look} lists all calls; add --failure {found[0].cls} to list only these failures.")
    return lines


async def _newest(store: Store, views: Sequence[BatchView], cls: FailureClass) -> AttemptObject | None:
    """The latest call with this failure, from the newest batch that has one."""
    for view in reversed(views):
        if any(cls in tally.failures for tally in view.by_deployment):
            calls = await store.jobs.attempts(batch_id=view.id, failure=cls, limit=1, latest=True)
            return calls[0] if calls else None
    return None
