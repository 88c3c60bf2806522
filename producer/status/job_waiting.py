"""Why a queued job does not start: because of the job, its batch, or the steps of its chain."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.models.config.catalog import UnknownProvider, account_of, keys_of, limits_of, resolve_provider
from understudy.models.config.provider_settings import Limits
from understudy.models.config.settings import Settings
from understudy.models.disabled import SetAside
from understudy.models.failure import Scope
from understudy.models.jobs.wait_reasons import CREDENTIAL, HOLD_WORDS, PAUSED, no_credential
from understudy.models.limits.state import LimitState, read_limits
from understudy.models.objects.job import waiting_of as put_back_for
from understudy.models.records import Waiting
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import JobState, Priority
from understudy.models.store import Store
from understudy.producer.queue_access import in_time
from understudy.producer.status.waiting import NO_QUEUE, nobody_works

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def waiting_of_job(
    settings: Settings, store: Store, queue: "Redis | None", job: Mapping[str, Any], now: float
) -> Waiting | None:
    """None: the job is running, has ended, or is scheduled for later by its owner. Raises StoreError."""
    if job["state"] != JobState.QUEUED:
        return None
    nobody = await nobody_works(store, queue)
    if nobody is not None or queue is None:
        return nobody
    put_back = put_back_for(job, now)
    if job["not_before"] > now:
        return put_back
    of_batch = await _of_batch(store, job["batch_id"])
    return of_batch or await _at_its_steps(settings, store, queue, job, now) or put_back


async def _of_batch(store: Store, batch_id: str) -> Waiting | None:
    view = await store.batches.view(batch_id) if batch_id else None
    if view is None:
        return None
    return Waiting(f"its batch is paused: {view.paused}", PAUSED) if view.paused else view.waiting


async def _at_its_steps(
    settings: Settings, store: Store, queue: "Redis", job: Mapping[str, Any], now: float
) -> Waiting | None:
    chain = await store.get_chain(job["chain_id"])
    names = [(account, step.model) for step in chain.steps for account in _accounts(settings, step)]
    live = await in_time(read_limits(queue, names, others=False))
    if live is None:
        return NO_QUEUE
    aside = [
        row for row in await store.credentials.listed() if any(row.forbids(step.model, now) for step in chain.steps)
    ]
    return held_at(settings, chain, Priority(job["priority"]), live, aside)


def _accounts(settings: Settings, step: Step) -> list[str]:
    try:
        provider = resolve_provider(settings, step.provider)
    except UnknownProvider:
        return []
    return [account_of(step.provider, key) for key in keys_of(provider)]


def held_at(
    settings: Settings, chain: Chain, priority: Priority, live: LimitState, aside: Sequence[SetAside]
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


def _held(settings: Settings, step: Step, live: LimitState, aside: Sequence[SetAside]) -> Waiting | None:
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


def _reserve(live: LimitState, step: Step, account: str, limits: Limits) -> tuple[str | None, float]:
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
