"""What is run again, as a new batch that points at the old one; the newest answer of a line counts."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from models.budgets import of_batch
from models.chain import Chain
from models.failure import FailureClass
from models.forecast import Forecast
from models.ids import new_id
from models.records import NewBatch, NewJob
from models.routing import RouteOptions, Router, under_rules
from models.rules import Rules, rules_of
from models.settings import Settings
from models.state import BatchState
from models.store import Store

SLICE = 2_000
T = TypeVar("T")
KNOWN_CHAINS = 1_000

ANSWERED_BY = "answered_by"
"""In the options of a retry: the providers whose answers it asks for again."""

WORTH_A_RETRY = frozenset(FailureClass) - {FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER, FailureClass.CRASHED}
"""What a rerun tries again; of the others, the same request would be refused again, or would kill workers again."""

EVERYTHING = frozenset(FailureClass)

NEVER_ACCEPTED = frozenset({BatchState.VALIDATING, BatchState.FAILED})
"""A batch that is being filled, or whose filling was broken off."""


async def retry_failed(
    store: Store, settings: Settings, batch_id: str, worth: frozenset[FailureClass] = WORTH_A_RETRY
) -> str | None:
    """Submit what ended without an answer again, as a new batch that points at the newest one of this batch's line.

    That is what failed and may succeed, what expired and what was cancelled; and whatever made the first jobs of a
    batch fail, because it paused so that somebody mends it. A line counts as its newest retry says, so nothing is tried
    twice because two retries were asked for. None when there is nothing to try. Memory: the custom ids of the retries,
    not of the batch.
    """
    line = await line_of(store, batch_id)
    of_each = {each: await worth_of(store, settings, each, worth) for each in line}
    return await _submit_again(store, settings, line, _unanswered(store, of_each))


async def retry_answered(
    store: Store, settings: Settings, batch_id: str, providers: Sequence[str], route: RouteOptions
) -> str | None:
    """Submit the lines again that one of these providers answered, as a new batch; `retry_failed` says how.

    They keep their chains, unless `route` names a model or a chain; their data rules hold for that, too. None when
    there are none. Raises RequestError.
    """
    line = await line_of(store, batch_id)
    answered = (store.answered_jobs(each, providers) for each in reversed(line))
    jobs = _newest(store, line, ([each] for each in answered))
    if route.model is not None or route.chain is not None:
        jobs = _along(settings, route, jobs)
    options = {ANSWERED_BY: list(providers), "model": route.model, "chain": route.chain}
    return await _submit_again(
        store, settings, line, jobs, {word: said for word, said in options.items() if said is not None}
    )


async def _along(settings: Settings, route: RouteOptions, jobs: AsyncIterator[NewJob]) -> AsyncIterator[NewJob]:
    """The jobs with another chain, under the data rules that they were accepted with."""
    routers: dict[str, Router] = {}
    async for job in jobs:
        rules = rules_of(job.chain)
        if (name := repr((job.chain.endpoint, rules))) not in routers:
            routers[name] = Router(settings, route, endpoint=job.chain.endpoint, rules=rules)
        job.chain, _ = routers[name].resolve(orjson.loads(job.body), job.custom_id)
        yield job


async def _under_rules(settings: Settings, rules: Rules, jobs: AsyncIterator[NewJob]) -> AsyncIterator[NewJob]:
    """The jobs with chains that keep these rules, too."""
    known: dict[int, tuple[Chain, Chain]] = {}  # holds each chain, so that no other one gets its identity
    async for job in jobs:
        if id(job.chain) not in known:
            if len(known) >= KNOWN_CHAINS:
                known.clear()
            known[id(job.chain)] = job.chain, under_rules(settings, job.chain, rules)
        _, job.chain = known[id(job.chain)]
        yield job


async def _submit_again(
    store: Store,
    settings: Settings,
    line: Sequence[str],
    jobs: AsyncIterator[NewJob],
    options: dict[str, Any] | None = None,
) -> str | None:
    """A new batch of these jobs that points at the newest one of the line; None when there are none.

    It is accepted anew, so the data rules that its tenant has by now hold for it, too. Raises RequestError when they
    leave a job without a step.
    """
    newest = await store.batch_view(line[-1]) if line else None
    if newest is None:
        return None
    retry = NewBatch(
        new_id("batch"),
        priority=newest.priority,
        tenant=newest.tenant,
        expires_at=await store.now() + (newest.expires_at - newest.created_at),
        retry_of=newest.id,
        source=newest.source,
        endpoint=newest.endpoint,
        metadata=newest.metadata,
        options=orjson.dumps(options).decode() if options else None,
        weight=newest.weight,
    )
    retry.budget_usd, granted_usd = await inherited_budget(store, newest.id)
    forecast, total = Forecast(settings), 0
    if rules := await store.tenant_rules(newest.tenant):
        jobs = _under_rules(settings, rules, jobs)
    try:
        async for slice_ in in_slices(jobs):
            if not total:
                await store.create_batch(retry)
                if granted_usd:
                    await store.grant(of_batch(retry.id), granted_usd)
            for job in slice_:
                job.id, job.expires_at = new_id("job"), retry.expires_at
            await store.add_jobs(retry.id, slice_)
            total += len(slice_)
            forecast.add_all(slice_)
    except BaseException:
        await store.discard_refused(retry.id)
        raise
    if not total:
        return None
    await store.open_batch(retry.id, total, estimate=forecast.estimate)
    return retry.id


async def inherited_budget(store: Store, batch_id: str) -> tuple[float | None, float]:
    """The budget of a batch that follows another one, and what is to be granted beyond it (less than nothing, most of
    the time): it may spend what the other one left, and `resume` grants the first amount once more."""
    budget = (await store.budgets([of_batch(batch_id)]))[of_batch(batch_id)]
    granted_usd = 0.0 if budget.purse is None else budget.purse.left_usd - (budget.base_usd or 0.0)
    return budget.base_usd, granted_usd


async def line_of(store: Store, batch_id: str) -> list[str]:
    """A batch and its retries that were accepted, oldest first. Empty when the batch was not."""
    line = []
    for each in [batch_id, *await store.retries_of(batch_id)]:
        view = await store.batch_view(each)
        if view is not None and view.state not in NEVER_ACCEPTED:
            line.append(each)
    return line if line[:1] == [batch_id] else []


def _unanswered(store: Store, worth: Mapping[str, frozenset[FailureClass]]) -> AsyncIterator[NewJob]:
    """The jobs of a batch and its retries that have no newer record and that ended without an answer; of those that
    failed the ones whose failure is `worth` a retry, by batch, oldest first."""
    batches = list(worth)
    ended_badly = ((store.failed_jobs(each, worth[each]), store.closed_jobs(each)) for each in reversed(batches))
    return _newest(store, batches, ended_badly)


async def worth_of(
    store: Store, settings: Settings, batch_id: str, worth: frozenset[FailureClass] = WORTH_A_RETRY
) -> frozenset[FailureClass]:
    """Which failures of a batch are worth a retry: these, and what made its first jobs fail, because it paused so that
    somebody corrects that."""
    first = settings.batches.canary_lines
    died = await store.first_failure(batch_id, first) if first else None
    return worth if died is None else worth | {died.cls}


async def _newest(
    store: Store, batches: Sequence[str], newest_first: Iterable[Iterable[AsyncIterator[NewJob]]]
) -> AsyncIterator[NewJob]:
    """Those of the jobs of a batch and its retries (oldest first) that have no newer record."""
    newer: set[str] = set()
    for batch_id, chosen in zip(reversed(batches), newest_first, strict=True):
        for jobs in chosen:
            async for job in jobs:
                if job.custom_id not in newer:
                    yield job
        if batch_id != batches[0]:
            newer.update([each async for each in store.custom_ids(batch_id)])


async def in_slices(jobs: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    chunk: list[T] = []
    async for job in jobs:
        chunk.append(job)
        if len(chunk) == SLICE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
