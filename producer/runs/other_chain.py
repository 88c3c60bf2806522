"""Jobs along another chain, or along their own under the current rules of their tenant."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar, cast

import orjson

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewJob
from understudy.models.routing.chain import Chain, Endpoint
from understudy.models.routing.data_rules import Rules
from understudy.models.routing.request_options import RouteOptions
from understudy.models.routing.route import Router, check_schemas, schemas_to_check, under_rules
from understudy.models.store import Store

SLICE = 2_000


KNOWN_CHAINS = 1_000


AS_BEFORE = RouteOptions()
"""Each line keeps its chain."""


T = TypeVar("T")


async def reroute(store: Store, settings: Settings, batch_id: str, route: RouteOptions) -> int:
    """Switch the waiting jobs of a batch to another chain. Returns their number. Raises RequestError."""
    view = await store.batches.view(batch_id)
    if view is None:
        return 0
    of = Origin(view.tenant, cast(Endpoint, view.endpoint), view.budget_usd)
    jobs = await as_allowed(store, settings, route, of, store.reruns.unfinished(batch_id))
    return sum([await store.reruns.reroute(slice_) async for slice_ in in_slices(jobs)])


def names_a_chain(route: RouteOptions) -> bool:
    return route.model is not None or route.chain is not None


async def job_again(store: Store, settings: Settings, job_id: str, route: RouteOptions = AS_BEFORE) -> NewJob | None:
    """The request of a single job as a new job, not accepted yet, under the current rules of its tenant, and with the
    chain of the route if it has one. None: the request was deleted. Raises RequestError."""
    asked = await store.reruns.asked(job_id)
    if asked is None:
        return None

    async def only() -> AsyncIterator[NewJob]:
        yield asked

    of = Origin(asked.tenant, asked.chain.endpoint, None)
    async for job in await as_allowed(store, settings, route, of, only()):
        job.id = new_id("job")
        job.custom_id = job.id if job.custom_id == job_id else job.custom_id
        return job
    return None


@dataclass(frozen=True, slots=True)
class Origin:
    """The tenant, endpoint and budget of the jobs that are retried."""

    tenant: str
    endpoint: Endpoint
    budget_usd: float | None


async def as_allowed(
    store: Store, settings: Settings, route: RouteOptions, of: Origin, jobs: AsyncIterator[NewJob]
) -> AsyncIterator[NewJob]:
    """The jobs with the chain of the route, if it has one, and under the current rules of their tenant.

    Raises RequestError for a route that no request could use, even without jobs; and, while iterating, when the rules
    leave a job without a step.
    """
    rules = (await store.tenants.rules(of.tenant)).with_budget(of.budget_usd)
    if names_a_chain(route):
        Router(settings, route, endpoint=of.endpoint, rules=rules).route({})
        return _along(settings, route, rules, jobs)
    return _under_rules(settings, rules, jobs) if rules else jobs


async def _along(
    settings: Settings, route: RouteOptions, of_tenant: Rules, jobs: AsyncIterator[NewJob]
) -> AsyncIterator[NewJob]:
    """The jobs with another chain; the data rules that they were accepted with still apply."""
    routers: dict[str, Router] = {}
    async for job in jobs:
        rules = of_tenant.merged(job.chain.rules)
        if (name := repr((job.chain.endpoint, rules))) not in routers:
            routers[name] = Router(settings, route, endpoint=job.chain.endpoint, rules=rules)
        job.chain, body = routers[name].route(orjson.loads(job.body), job.custom_id)
        if schemas := schemas_to_check(job.chain, body):
            await asyncio.to_thread(check_schemas, schemas)
        yield job


async def _under_rules(settings: Settings, rules: Rules, jobs: AsyncIterator[NewJob]) -> AsyncIterator[NewJob]:
    """The jobs with their own chains, which must satisfy these rules as well."""
    known: dict[int, tuple[Chain, Chain]] = {}  # keeps each chain alive so that its `id()` is not reused
    async for job in jobs:
        if id(job.chain) not in known:
            if len(known) >= KNOWN_CHAINS:
                known.clear()
            known[id(job.chain)] = job.chain, under_rules(settings, job.chain, rules)
        _, job.chain = known[id(job.chain)]
        yield job


async def in_slices(jobs: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    chunk: list[T] = []
    async for job in jobs:
        chunk.append(job)
        if len(chunk) == SLICE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
