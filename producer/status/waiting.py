"""Why a batch or a job waits, and until when: no worker, a cause that a person must fix, or a limit that passes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from understudy.models.config.settings import Settings
from understudy.models.disabled import SetAside
from understudy.models.jobs.wait_reasons import RULES, WORKER
from understudy.models.queue import keys
from understudy.models.records import BatchView, Waiting
from understudy.models.routing.chain import Chain
from understudy.models.state import BatchState, JobState
from understudy.models.store import Store
from understudy.producer.durations import until as until_words
from understudy.producer.queue_access import in_time

if TYPE_CHECKING:
    from redis.asyncio import Redis

NO_WORKER = Waiting("no worker is running; start one with `understudy worker`", WORKER)
NO_QUEUE = Waiting("Redis is unreachable, so no new calls start", "queue")
NO_PLANNER = Waiting("no worker is currently planning; check the workers' log if this persists", "planner")
"""When the planning worker dies, another one takes over within seconds."""

NOBODY = frozenset(each.hold for each in (NO_WORKER, NO_QUEUE, NO_PLANNER))

TOLD_AGAIN_S = 10.0

PACING = frozenset({"requests", "tokens"})
"""Wait reasons that end call by call; after the others, everything resumes at once."""


async def lack_of_workers(store: Store) -> str | None:
    """One sentence when no worker is running."""
    return None if await store.claims.live_workers() else NO_WORKER.reason


async def waiting_of(store: Store, redis: "Redis | None", views: Sequence[BatchView]) -> list[Waiting | None]:
    """What each batch waits for; None: it is running, is paused, or has ended. Raises StoreError."""
    still = [_stands_still(view) for view in views]
    nobody = await nobody_works(store, redis) if any(still) else None
    return [(nobody or view.waiting) if stands else None for view, stands in zip(views, still, strict=True)]


def _stands_still(view: BatchView) -> bool:
    open_one = view.state is BatchState.IN_PROGRESS and not view.paused
    return open_one and not view.counts.get(JobState.RUNNING)


async def nobody_works(store: Store, redis: "Redis | None") -> Waiting | None:
    """Why nothing at all starts: no worker, no queue (`redis` None: there is none), or no planner."""
    if not await store.claims.live_workers():
        return NO_WORKER
    planned = None if redis is None else await in_time(redis.exists(keys.PLANNER))
    if planned is None:
        return NO_QUEUE
    return None if planned else NO_PLANNER


def explained(waiting: Waiting | None, now: float) -> str | None:
    """As text: `waits for lead/large (account lead:main): cooling down after a refusal until 14:03:20 (in 25s)`."""
    if waiting is None:
        return None
    whom, reason = "" if waiting.hold in NOBODY else "waits: ", waiting.reason
    if waiting.provider is not None:
        place = f"{waiting.provider}/{waiting.model}" if waiting.model else waiting.provider
        account = f" (account {waiting.account})" if waiting.account else ""
        whom, reason = f"waits for {place}{account}: ", reason.removesuffix(f" at {place}")
    if waiting.until is None or waiting.until <= now:
        return whom + reason
    start = "; next start at" if waiting.hold in PACING else " until"
    return f"{whom}{reason}{start} {until_words(waiting.until, now)}"


class WaitNews:
    """Reports each wait reason once, and again when it outlasts its announced end.

    Our own pacing, which stops and starts all the time, is reported once.
    """

    def __init__(self) -> None:
        self._told: Waiting | None = None
        self._until = 0.0

    def is_news(self, waiting: Waiting | None, now: float) -> bool:
        """Whether to report it now. None: nothing waits."""
        if waiting is None:
            return False
        what = replace(waiting, until=None)
        if what == self._told and now <= self._until:
            return False
        lasting = waiting.until is None or waiting.hold in PACING
        self._told, self._until = what, float("inf") if lasting else max(waiting.until or 0.0, now + TOLD_AGAIN_S)
        return True


BELIEVED_AFTER_S = 20.0
"""Seconds of failing probes after which a disabled credential is no longer taken for an accident."""


async def blocked_by(store: Store, settings: Settings, batches: Sequence[str]) -> str | None:
    """What a person must fix before any of these batches continues; None while something runs or may run."""
    views = [view for batch_id in batches if (view := await store.batches.view(batch_id)) is not None]
    if any(view.counts.get(JobState.RUNNING) for view in views):
        return None
    waits = [view.waiting for view in views if _stands_still(view)]
    if waits and all(waiting is not None and waiting.hold == RULES for waiting in waits):
        return waits[0].reason if waits[0] else None
    now = await store.now()
    aside = [row for row in await store.credentials.listed() if not row.is_weak or now - row.since > BELIEVED_AFTER_S]
    if not aside:
        return None
    lanes = [lane for lane in await store.planning.lanes() if lane.batch_id in batches]
    chains = [await store.get_chain(lane.chain_id) for lane in lanes]
    if not chains or any(not _blocked(chain, settings, aside) for chain in chains):
        return None
    lead = chains[0].steps[0].provider
    row = next((row for row in aside if row.provider == lead), aside[0])
    return f"key '{row.key}' of provider '{row.provider}' is disabled ({row.failure}: {row.reason})"


def _blocked(chain: Chain, settings: Settings, aside: Iterable[SetAside]) -> bool:
    """Whether every credential of every step is disabled."""
    refused = {(row.provider, row.key) for row in aside if row.model == ""}
    for step in chain.steps:
        provider = settings.providers.get(step.provider)
        if provider is None:
            continue
        if not provider.api_keys or any((step.provider, key.name) not in refused for key in provider.api_keys):
            return False
    return True
