"""What providers said when calls failed: one example of each kind, and where the others are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.models.failure import FailureClass
from understudy.models.records import BatchView
from understudy.models.store import Store

MOST_EXAMPLES = 5
MOST_WORDS = 200
"""So much is repeated of what a provider said."""


def in_a_line(message: str | None) -> str:
    """A provider's message, cut, without its line breaks."""
    words = " ".join((message or "").split())
    return words if len(words) <= MOST_WORDS else f"{words[: MOST_WORDS - 1]}…"


def said(call: Mapping[str, Any]) -> str:
    """How a call failed: `bad_request 400: Unsupported parameter`."""
    status, words = f" {call['status']}" if call["status"] else "", in_a_line(call["message"])
    return f"{call['failure']}{status}{f': {words}' if words else ''}"


async def failure_examples(store: Store, views: Sequence[BatchView]) -> list[str]:
    """Of a batch and its retries: the most frequent failures with an example each. Raises StoreError."""
    counts: Counter[str] = Counter()
    for view in views:
        for tally in view.by_deployment:
            counts.update(tally.failures)
    lines: list[str] = []
    for name, _ in counts.most_common(MOST_EXAMPLES):
        calls = await _newest(store, views, FailureClass(name))
        lines += [f"for example at {call['provider']}/{call['model']}: {said(call)}" for call in calls]
    if lines:
        kind, look = counts.most_common(1)[0][0], f"`understudy attempts {views[-1].id}`"
        lines.append(f"{look} shows every call; add --failure {kind} for those of one kind.")
    return lines


async def _newest(store: Store, views: Sequence[BatchView], cls: FailureClass) -> list[dict[str, Any]]:
    """The newest call that failed so, of the newest batch that has one."""
    for view in reversed(views):
        if any(cls in tally.failures for tally in view.by_deployment):
            return await store.jobs.attempts(batch_id=view.id, failure=cls, limit=1, latest=True)
    return []
