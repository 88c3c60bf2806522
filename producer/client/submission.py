"""Submission from a program: from prompts, messages, bodies, lines and files to jobs and batches in the ledger.

A batch is accepted completely or not at all; what has an idempotency key, once.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar

from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.errors import suggestion
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.request.wire import RequestError, write_json
from understudy.models.routing.chain import CHAT, Endpoint
from understudy.models.routing.data_rules import Rules
from understudy.models.routing.request_options import RouteOptions
from understudy.models.routing.route import Router, check_schemas
from understudy.models.state import Priority
from understudy.models.store import Store, StoreConflict
from understudy.models.store.work.intake import Made, NamedRequest, OtherRequest
from understudy.producer.ingest.input_rows import Row, Shape, checked_id, row_of
from understudy.producer.ingest.intake import BadLine, JobReader, as_chat, read_jobs
from understudy.producer.runs.preflight import Preflight
from understudy.producer.single_jobs import JOBS_PATH, check_key, named_by, single_job, stage

logger = logging.getLogger(__name__)

T = TypeVar("T")

SLICE = 2_000
FILE_BYTES = 1_048_576

Request: TypeAlias = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A prompt, a list of chat messages, or a whole request: a chat-completion body or a line of a batch file."""

Requests: TypeAlias = Iterable[Request] | AsyncIterable[Request] | Path


class Routing(TypedDict, total=False):
    """Routing options. Those in the body of a request take precedence, but all data rules apply."""

    model: str | None
    """`provider/model`, the name of a chain, or a model listed by one provider. Default: the chain `default`."""
    chain: str | None
    """A configured chain."""
    fallbacks: Sequence[str | dict[str, Any]]
    """Models to fall back to."""
    order: str | None
    """`chain`, `cheapest` or `fastest`."""
    require: Mapping[str, Any] | None
    """Tags that a provider must have, such as `{"region": ["eu", "ch"], "zdr": True}`."""
    forbid: Mapping[str, Any] | None
    """Tag values that a provider must not have."""


def _as_row(request: Request) -> Row:
    """Convert a request in any supported form to a row. Raises RequestError."""
    if isinstance(request, str):
        return Row({"prompt": request})
    if isinstance(request, Mapping):
        return row_of(dict(request))
    if isinstance(request, Sequence) and not isinstance(request, bytes):
        return Row({"messages": list(request)})
    raise RequestError("a request must be a prompt, a list of messages or an object")


def route_of(routing: Routing) -> tuple[RouteOptions, dict[str, Any]]:
    """The routing options, and those that were given. Raises RequestError."""
    for word in routing:
        if word not in Routing.__optional_keys__:
            raise RequestError(f"there is no argument '{word}'{suggestion(word, Routing.__optional_keys__)}", word)
    said = {word: value for word, value in routing.items() if value is not None}
    return RouteOptions.of(said), said


class Digest:
    """A hash of a batch submission: equal for the same requests in the same order, however their JSON is written."""

    def __init__(self, key: str, said: Mapping[str, Any]) -> None:
        """Raises RequestError for a key that cannot be one."""
        check_key(key)
        self._key = key
        self._hash = hashlib.sha256(write_json(said, in_order=True))

    def add(self, row: Row) -> None:
        line = {"custom_id": row.custom_id, "url": row.endpoint, "body": row.body}
        self._hash.update(b"\n" + write_json(line, in_order=True))

    def add_file(self, path: Path) -> None:
        with path.open("rb") as stream:
            while piece := stream.read(FILE_BYTES):
                self._hash.update(piece)

    def named(self) -> NamedRequest:
        return NamedRequest(self._key, self._hash.hexdigest())


async def _slices_of(
    requests: Iterable[Request] | AsyncIterable[Request], reader: JobReader, digest: Digest | None
) -> AsyncGenerator[list[NewJob], None]:
    """Jobs in slices; each request is added to `digest`. Raises RequestError for the first invalid request, with its
    number from 1."""
    jobs: list[NewJob] = []
    number = 0
    async for request in _each(requests):
        number += 1
        try:
            row = _as_row(request)
            if digest is not None:
                digest.add(row)
            job = reader.job(number, row)
        except RequestError as error:
            raise RequestError(f"request {number}: {error}", error.param, error.code) from None
        jobs.append(_good(job, "request"))
        if len(jobs) == SLICE:
            yield jobs
            jobs = []
    if jobs:
        yield jobs


async def _slices_of_lines(lines: Iterator[NewJob | BadLine]) -> AsyncGenerator[list[NewJob], None]:
    """The same for a file, read in a thread."""
    while chunk := await asyncio.to_thread(lambda: list(islice(lines, SLICE))):
        yield [_good(line, "line") for line in chunk]


def _good(job: NewJob | BadLine, what: str) -> NewJob:
    if isinstance(job, BadLine):
        raise RequestError(f"{what} {job.line}: {job.reason}", job.param, job.code)
    return job


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


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
    row = _as_row(request)
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
    made = await _unless_other(store.intake.made_by(tenant, named)) if named is not None else None
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
    made = await _unless_other(store.intake.accept_jobs(job.tenant, [job], named))
    if made is None and redis is not None:
        await stage(redis, job.tenant, [job], time.time)
    return made


async def _unless_other(answer: Awaitable[T]) -> T:
    """Raises RequestError when the idempotency key belongs to another request."""
    try:
        return await answer
    except OtherRequest:
        raise RequestError(
            "this idempotency_key was used for another request; use a different key for each request",
            "idempotency_key",
            "idempotency_key_reused",
        ) from None


async def fill(
    store: Store,
    settings: Settings,
    new: NewBatch,
    requests: Requests,
    shape: Shape,
    *,
    said: Mapping[str, Any],
    key: str | None,
) -> str:
    """Accept a batch. Returns its id, or that of an earlier batch created by the same request with this key.

    `said`: the options of the request, without its lines. Raises RequestError, InputError.
    """
    digest = None if key is None else Digest(key, said)
    if digest is not None and isinstance(requests, Path):
        await asyncio.to_thread(digest.add_file, requests)
        made = await _unless_other(store.intake.made_by(new.tenant, digest.named()))
        if made is not None:
            return made.object_id
    rules = (await store.tenants.rules(new.tenant)).with_budget(new.budget_usd)
    batch_id = None
    await store.intake.create_batch(new)
    try:
        preflight, total, endpoint = Preflight(settings), 0, None
        async with aclosing(_slices(settings, new, requests, shape, rules, digest)) as slices:
            async for jobs in slices:
                await store.intake.add_jobs(new.id, jobs)
                total, endpoint = total + len(jobs), jobs[0].chain.endpoint
                preflight.add_all(jobs)
        if not total:
            raise RequestError("the batch contains no requests")
        estimate = preflight.forecast.estimate
        if digest is None:
            await store.intake.open_batch(new.id, total, endpoint, estimate)
            batch_id = new.id
        else:
            opened = store.intake.open_named(new.id, total, endpoint, estimate, new.tenant, digest.named())
            batch_id = await _unless_other(opened)
    finally:
        if batch_id != new.id:
            await _discard(store, new.id)
    return batch_id


async def _discard(store: Store, batch_id: str) -> None:
    try:
        await store.retention.discard_batch(batch_id)
    except StoreConflict:  # opened after all: the reply to our commit was lost, and the batch is accepted
        logger.warning("batch %s was accepted although its submission was interrupted", batch_id)


def _slices(
    settings: Settings, new: NewBatch, requests: Requests, shape: Shape, rules: Rules, digest: Digest | None
) -> AsyncGenerator[list[NewJob], None]:
    reader = JobReader(
        shape, settings, priority=new.priority, expires_at=new.expires_at, tenant=new.tenant, rules=rules
    )
    if isinstance(requests, Path):
        return _slices_of_lines(read_jobs(requests, reader))
    for word, value in (("prompt", shape.prompt), ("id_column", shape.id_column)):
        if value is not None:
            raise RequestError(f"'{word}' applies only to a CSV file given as a Path", word)
    if isinstance(requests, str | bytes | Mapping):
        raise RequestError("a batch consists of many requests: pass a list of them, or the Path of a file", "requests")
    return _slices_of(requests, reader, digest)
