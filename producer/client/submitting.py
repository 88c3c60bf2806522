"""Accepts a single job from a program: fields from its arguments and body, and its idempotency key."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.request.wire import RequestError
from understudy.models.routing.chain import CHAT, Endpoint
from understudy.models.routing.options import RouteOptions
from understudy.models.routing.route import Router, check_schemas
from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.models.store.work.intake import Made, NamedRequest, OtherRequest
from understudy.producer.client.reading import Request, Routing, as_row, route_of
from understudy.producer.ingest.input_rows import checked_id
from understudy.producer.ingest.intake import as_chat
from understudy.producer.single_jobs import JOBS_PATH, named_by, single_job, stage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with all fields in one body, as over HTTP, and the routing options from the arguments."""

    document: dict[str, Any]
    endpoint: Endpoint
    route: RouteOptions
    said: dict[str, Any]

    def named(self, key: str | None) -> NamedRequest | None:
        """The named request, equal to that of the same request over HTTP, which has the routing fields in its body."""
        alike = {**self.said, **self.document}
        twice = self.said.keys() & self.document.keys()
        return named_by(key, JOBS_PATH, {**alike, "arguments": self.said} if twice else alike)


def asked_for(request: Request, arguments: Mapping[str, Any], custom_id: str | None, routing: Routing) -> Asked:
    """Raises RequestError."""
    row = as_row(request)
    endpoint = row.endpoint or CHAT
    body = as_chat(row.body) if endpoint == CHAT else row.body
    name = {"custom_id": checked_id(custom_id) or row.custom_id}
    document = {word: value for word, value in {**arguments, **body, **name}.items() if value is not None}
    return Asked(document, endpoint, *route_of(routing))


async def accept_one(
    store: Store, settings: Settings, redis: Redis | None, tenant: str, asked: Asked, key: str | None
) -> str:
    """The id of the job, or of an earlier job created by the same request with this key. Raises RequestError."""
    named = asked.named(key)
    made = await unless_other(store.intake.made_by(tenant, named)) if named is not None else None
    if made is not None:
        return made.object_id
    rules = await store.tenants.rules(tenant)
    router = Router(settings, asked.route, endpoint=asked.endpoint, rules=rules)
    job, schemas = single_job(
        asked.document, router, settings, tenant, priority=Priority.NORMAL, endpoint=asked.endpoint
    )
    if schemas:
        await asyncio.to_thread(check_schemas, schemas)
    made = await accept(store, redis, job, named)
    return job.id if made is None else made.object_id


async def accept(store: Store, redis: Redis | None, job: NewJob, named: NamedRequest | None = None) -> Made | None:
    """Accept a job and stage it, or return what the same named request has already created. Raises RequestError."""
    made = await unless_other(store.intake.accept_jobs(job.tenant, [job], named))
    if made is None and redis is not None:
        await stage(redis, job.tenant, [job], time.time)
    return made


async def unless_other(answer: Awaitable[T]) -> T:
    """Raises RequestError when the idempotency key belongs to another request."""
    try:
        return await answer
    except OtherRequest:
        raise RequestError(
            "this idempotency_key was used for another request; use a different key for each request",
            "idempotency_key",
            "idempotency_key_reused",
        ) from None
