"""Why a batch or a job waits, and until when: no worker, a cause that a person must fix, or a limit that passes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from understudy.models.config.catalog import UnknownProvider, account_of, keys_of, limits_of, resolve_provider
from understudy.models.config.provider_settings import Limits
from understudy.models.config.settings import Settings
from understudy.models.disabled import DisabledCredential
from understudy.models.failure import Scope
from understudy.models.jobs.pause_reasons import BY_FAILURES, PauseKind
from understudy.models.jobs.views import BatchView, JobView
from understudy.models.jobs.wait_reasons import CREDENTIAL, HOLD_WORDS, PAUSED, RULES, WORKER, Waiting, no_credential
from understudy.models.queue import keys
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import OPEN_BATCH_STATES, BatchState, JobState, Priority
from understudy.models.store import Store
from understudy.producer.number_format import until as until_words
from understudy.producer.queue_access import in_time

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from understudy.models.limits.state import LimitState

NO_WORKER = Waiting("no worker is running; start one with `understudy worker`", WORKER)
NO_QUEUE = Waiting("Redis is unreachable, so no new calls start", "queue")
NO_PLANNER = Waiting("no worker is currently planning; check the workers' log if this persists", "planner")
"""When the planning worker dies, another one takes over within seconds."""

NOTHING_STARTS = frozenset(each.hold for each in (NO_WORKER, NO_QUEUE, NO_PLANNER))

TOLD_AGAIN_S = 10.0

PACING = frozenset({"requests", "tokens"})
"""Wait reasons that end call by call; after the others, everything resumes at once."""


async def lack_of_workers(store: Store) -> str | None:
    """One sentence when no worker is running."""
    return None if await store.workers.live() else NO_WORKER.reason


async def waiting_of(store: Store, redis: "Redis | None", views: Sequence[BatchView]) -> list[Waiting | None]:
    """What each batch waits for; None: it is running, is paused, or has ended. Raises StoreError."""
    still = [_is_idle(view) for view in views]
    missing = await missing_worker_or_planner(store, redis) if any(still) else None
    return [(missing or view.waiting) if stands else None for view, stands in zip(views, still, strict=True)]


def _is_idle(view: BatchView) -> bool:
    open_one = view.state is BatchState.IN_PROGRESS and not view.paused
    return open_one and not view.counts.get(JobState.RUNNING)


async def missing_worker_or_planner(store: Store, redis: "Redis | None") -> Waiting | None:
    """Why nothing at all starts: no worker, no queue (`redis` None: there is none), or no planner."""
    if not await store.workers.live():
        return NO_WORKER
    planned = None if redis is None else await in_time(redis.exists(keys.PLANNER))
    if planned is None:
        return NO_QUEUE
    return None if planned else NO_PLANNER


def explained(waiting: Waiting | None, now: float) -> str | None:
    """As text: `waits for lead/large (account lead:main): cooling down after a refusal until 14:03:20 (in 25s)`."""
    if waiting is None:
        return None
    whom, reason = "" if waiting.hold in NOTHING_STARTS else "waits: ", waiting.reason
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
    waits = [view.waiting for view in views if _is_idle(view)]
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


def _blocked(chain: Chain, settings: Settings, aside: Iterable[DisabledCredential]) -> bool:
    """Whether every credential of every step is disabled."""
    refused = {(row.provider, row.key) for row in aside if row.model == ""}
    for step in chain.steps:
        provider = settings.providers.get(step.provider)
        if provider is None:
            continue
        if not provider.api_keys or any((step.provider, key.name) not in refused for key in provider.api_keys):
            return False
    return True


def first_paused(views: Iterable[BatchView]) -> BatchView | None:
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


def resume_advice(held: BatchView) -> str:
    if held.pause_kind is PauseKind.STOPPED:
        return f"stopped; repeat the run or use `understudy resume {held.id}` to continue it"
    goes_on = f"`understudy resume {held.id}` resumes it"
    if held.pause_kind not in BY_FAILURES:
        return goes_on
    return f"`understudy attempts {held.id}` shows the answers; once the cause is fixed, {goes_on}"


async def waiting_of_job(settings: Settings, store: Store, queue: "Redis | None", job: JobView) -> Waiting | None:
    """None: the job is running, has ended, or is scheduled for later by its owner. Raises StoreError."""
    if job.state is not JobState.QUEUED:
        return None
    missing = await missing_worker_or_planner(store, queue)
    if missing is not None or queue is None:
        return missing
    if job.is_scheduled:
        return job.waiting
    of_batch = await _of_batch(store, job.batch_id)
    return of_batch or await _at_its_steps(settings, store, queue, job) or job.waiting


async def _of_batch(store: Store, batch_id: str) -> Waiting | None:
    view = await store.batches.view(batch_id) if batch_id else None
    if view is None:
        return None
    return Waiting(f"its batch is paused: {view.paused}", PAUSED) if view.paused else view.waiting


async def _at_its_steps(settings: Settings, store: Store, queue: "Redis", job: JobView) -> Waiting | None:
    from understudy.models.limits.state import read_limits  # only for a job that waits, while a queue is running

    chain = await store.get_chain(job.chain_id)
    names = [(account, step.model) for step in chain.steps for account in _accounts(settings, step)]
    live = await in_time(read_limits(queue, names, others=False))
    if live is None:
        return NO_QUEUE
    aside = [
        row for row in await store.credentials.listed() if any(row.forbids(step.model, job.now) for step in chain.steps)
    ]
    return held_at(settings, chain, job.priority, live, aside)


def _accounts(settings: Settings, step: Step) -> list[str]:
    try:
        provider = resolve_provider(settings, step.provider)
    except UnknownProvider:
        return []
    return [account_of(step.provider, key) for key in keys_of(provider)]


def held_at(
    settings: Settings, chain: Chain, priority: Priority, live: "LimitState", aside: Sequence[DisabledCredential]
) -> Waiting | None:
    """What the steps of the chain wait for; None when one of them could start a call now.

    The first step worth waiting for, or else the one that is available soonest.
    """
    patience_s = chain.patience_for(priority)
    held: list[Waiting] = []
    for step in chain.steps:
        waiting = _held(settings, step, live, aside)
        if waiting is None:
            return None
        if waiting.until is not None and waiting.until - live.now <= patience_s and not chain.spill:
            return waiting
        held.append(waiting)
    return min(held, key=lambda each: each.until or float("inf"), default=None)


def _held(settings: Settings, step: Step, live: "LimitState", aside: Sequence[DisabledCredential]) -> Waiting | None:
    """The wait of the credential that may start first; None when one may start now."""
    try:
        provider = resolve_provider(settings, step.provider)
    except UnknownProvider:
        return Waiting(f"the provider of {step} is no longer configured", CREDENTIAL, step.provider, step.model)
    refused = {row.key for row in aside if row.provider == step.provider and row.forbids(step.model, live.now)}
    held: list[Waiting] = []
    for key in keys_of(provider):
        if key.name in refused:
            continue
        limits = limits_of(provider.settings, step.model, key)
        account = account_of(step.provider, key)
        hold, until = _reserve(live, step, account, limits)
        if hold is None:
            return None
        reason = f"{HOLD_WORDS[hold]} at {step}"
        held.append(Waiting(reason, hold, step.provider, step.model, account, until))
    cls = next((row.failure for row in aside if row.provider == step.provider and row.key in refused), None)
    probes = [row.probe_at for row in aside if row.provider == step.provider and row.key in refused]
    tried_at = min((each for each in probes if each is not None), default=None)
    gone = Waiting(no_credential(step.provider, cls), CREDENTIAL, step.provider, step.model, until=tried_at)
    return min(held, key=lambda each: each.until or 0.0, default=gone)


def _reserve(live: "LimitState", step: Step, account: str, limits: Limits) -> tuple[str | None, float]:
    """The limiter's name for what blocks a call of this account, and until when."""
    state = live.of(account, step.model)
    ends = {
        "requests": state.requests.next_start(limits.requests_per_minute, live.now),
        "tokens": state.tokens.next_start(limits.tokens_per_minute, live.now),
        "day": state.day.next_start(limits, live.now),
    }
    for each in live.cooldowns_of(step.provider, account, step.model):
        hold = "breaker" if each.scope is Scope.PROVIDER else "cooldown"
        ends[hold] = max(ends.get(hold, 0.0), each.next_start)
    hold = max(ends, key=lambda name: ends[name])
    return (hold, ends[hold]) if ends[hold] > live.now else (None, live.now)
