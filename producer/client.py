"""The Python interface. Async only: call it from a coroutine, or wrap a whole script in `asyncio.run`.

    async with open_client() as client:
        job_id = await client.enqueue("Say hello in Latin.", model="openai/gpt-4o-mini")
        print((await client.wait(job_id, timeout_s=60)).text)

Accepting means committing to the ledger: once `enqueue` or `enqueue_many` has returned, the work is done sooner or
later, whatever dies. The queue is told afterwards; where it cannot be reached, the planner finds the jobs instead.

What it raises:
    RequestError      the request is wrong; one sentence, nothing was accepted
    UnknownId         no job or batch has this id
    TimeoutError      `wait` gave up; the work goes on
    SettingsError, NoLedger, StoreError     configuration or database
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models import tickets
from models.ids import new_id
from models.job_objects import attempt_as_shown, cost_of
from models.records import BatchView, NewBatch, NewJob
from models.routing import RouteOptions
from models.settings import Settings, load_settings
from models.state import OPEN_BATCH_STATES, TERMINAL_STATES, JobState, Priority
from models.store import Store, StoreConflict
from models.tenants import DEFAULT_TENANT
from models.weights import USUAL_WEIGHT
from models.wire import RequestError
from producer.intake import JobReader, Row, Shape, checked_id, row_of
from producer.ledger import UnknownId, open_ledger
from producer.newest import rows_of
from producer.output import completion_text, error_text, output_line, row_of_job
from producer.preflight import Preflight

logger = logging.getLogger(__name__)

SLICE = 2_000
POLL_S = 0.05
POLL_MAX_S = 1.0
REDIS_TIMEOUT_S = 2.0

Request = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A prompt, a list of chat messages, or a whole request: a chat-completion body or a line of a batch file."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job as it stands. Of one that has not ended, `completion`, `text` and `error` are None.

    `completion` is the OpenAI chat completion with `extra_fields`; `text` is its first choice. `error` is one
    sentence. `attempts`: each has provider, model, failure, status, latency (ms) and possibly_billed. `cost_usd` is
    None where the cost of a call is not known.
    """

    job_id: str
    custom_id: str
    state: JobState
    completion: dict[str, Any] | None
    text: str | None
    error: str | None
    attempts: list[dict[str, Any]]
    cost_usd: float | None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES


@asynccontextmanager
async def open_client(
    config: Path | None = None, data: Path | None = None, settings: Settings | None = None
) -> AsyncIterator["Client"]:
    """A client of the installation that `understudy` commands with the same --config and --data would use.

    `settings` in place of both for those who have loaded them. A SQLite ledger is created where there is none.
    Without REDIS_URL work is only written to the ledger; a worker on this data folder finds it there.
    """
    settings = settings or load_settings(config, os.environ, data)
    async with open_ledger(settings, create=True) as store:
        if settings.redis_url is None:
            yield Client(settings, store, None)
            return
        async with _redis(settings.redis_url) as redis:
            yield Client(settings, store, redis)


def _redis(url: str) -> Redis:
    return Redis.from_url(url, socket_connect_timeout=REDIS_TIMEOUT_S, socket_timeout=REDIS_TIMEOUT_S)


class Client:
    """Submits work and reads what became of it. Made by `open_client`; safe for many tasks of one event loop."""

    def __init__(self, settings: Settings, store: Store, redis: Redis | None) -> None:
        self._settings = settings
        self.store = store
        self._redis = redis

    async def enqueue(
        self,
        request: Request,
        *,
        model: str | None = None,
        chain: str | None = None,
        fallbacks: Sequence[str | dict[str, Any]] = (),
        order: str | None = None,
        require: Mapping[str, Any] | None = None,
        forbid: Mapping[str, Any] | None = None,
        priority: Priority | str = Priority.NORMAL,
        expires_in_s: float | None = None,
        custom_id: str | None = None,
    ) -> str:
        """Accept one job; returns its id. Words about routing in the request itself win over the arguments, but for
        the data rules `require` and `forbid`, which all hold: tags such as `{"region": ["eu", "ch"], "zdr": True}`.
        `priority` may be written as a word: "interactive", "normal" or "bulk".
        """
        priority = _priority(priority)
        expires_at = await self._deadline(expires_in_s)
        route = RouteOptions(model, chain, tuple(fallbacks), order=order, require=require, forbid=forbid)
        reader = await self._reader(route, priority, expires_at)
        row = as_row(request)
        row.custom_id = checked_id(custom_id) or row.custom_id
        job = reader.job(0, row)
        if not isinstance(job, NewJob):
            raise RequestError(job.reason)
        await self.store.add_single([job])
        await self._stage(job)
        return job.id

    async def enqueue_many(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        model: str | None = None,
        chain: str | None = None,
        fallbacks: Sequence[str | dict[str, Any]] = (),
        order: str | None = None,
        require: Mapping[str, Any] | None = None,
        forbid: Mapping[str, Any] | None = None,
        priority: Priority | str = Priority.BULK,
        expires_in_s: float | None = None,
        source: str = "",
        weight: float = USUAL_WEIGHT,
    ) -> str:
        """Accept many jobs as one batch, all or none; returns its id. Memory stays flat however many there are.

        The first bad request ends it with a RequestError that says which one it was, counted from 1. A request may
        carry a `custom_id` that results repeat; without one its number is taken. `weight` is how many turns the batch
        has for one of another of its tenant and priority.
        """
        priority = _priority(priority)
        expires_at = await self._deadline(expires_in_s)
        batch = NewBatch(new_id("batch"), priority, expires_at=expires_at, source=source, weight=weight)
        route = RouteOptions(model, chain, tuple(fallbacks), order=order, require=require, forbid=forbid)
        reader = await self._reader(route, priority, batch.expires_at)
        await self.store.create_batch(batch)
        try:
            preflight, total, endpoint = Preflight(self._settings), 0, None
            async for jobs in _slices(requests, reader):
                await self.store.add_jobs(batch.id, jobs)
                total, endpoint = total + len(jobs), jobs[0].chain.endpoint
                preflight.add_all(jobs)
            if not total:
                raise RequestError("there are no requests in this batch")
            await self.store.open_batch(batch.id, total, endpoint, preflight.forecast.estimate)
        except BaseException:
            await self._discard(batch.id)
            raise
        return batch.id

    async def fetch(self, job_id: str) -> JobResult:
        """One job as it stands now."""
        view = await self.store.job_view(job_id)
        if view is None:
            raise UnknownId(job_id, "job")
        return job_result(view)

    async def fetch_batch(self, batch_id: str) -> BatchView:
        """One batch as it stands now, without its retries."""
        view = await self.store.batch_view(batch_id)
        if view is None:
            raise UnknownId(batch_id, "batch")
        return view

    async def results(self, batch_id: str) -> AsyncIterator[dict[str, Any]]:
        """Lines as in OpenAI's batch output (`custom_id`, `response`, `error`) of all jobs that have ended so far.

        In the order of the input. What a retry of the batch has answered meanwhile stands in place of the failure.
        """
        await self.fetch_batch(batch_id)
        async for row in rows_of(self.store, batch_id):
            yield output_line(row)

    async def wait(self, id_: str, timeout_s: float | None = None) -> JobResult | BatchView:
        """The job or the batch, once it has ended. Raises TimeoutError; the work goes on then."""
        pause_s = POLL_S
        async with asyncio.timeout(timeout_s):
            while True:
                view = await self._look(id_)
                if view.ended if isinstance(view, JobResult) else view.state not in OPEN_BATCH_STATES:
                    return view
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, POLL_MAX_S)

    async def _look(self, id_: str) -> JobResult | BatchView:
        batch = await self.store.batch_view(id_)
        if batch is not None:
            return batch
        job = await self.store.job_view(id_)
        if job is None:
            raise UnknownId(id_)
        return job_result(job)

    async def _reader(self, route: RouteOptions, priority: Priority, expires_at: float) -> JobReader:
        rules = await self.store.tenant_rules(DEFAULT_TENANT)
        return JobReader(
            Shape(route=route), self._settings, priority, expires_at, DEFAULT_TENANT, endpoint=None, rules=rules
        )

    async def _deadline(self, expires_in_s: float | None) -> float:
        if expires_in_s is not None and not expires_in_s > 0:
            raise RequestError("'expires_in_s' must be a number of seconds above 0", "expires_in_s")
        return await self.store.now() + (expires_in_s or self._settings.deadline_s)

    async def _stage(self, job: NewJob) -> None:
        """A job that is alone starts in milliseconds when its ticket is written now instead of by the planner."""
        if self._redis is None:
            return
        try:
            await tickets.stage_at_once(self._redis, DEFAULT_TENANT, [job])
        except (RedisError, OSError) as error:
            logger.warning("job %s is accepted, but Redis cannot be told (%s): it starts later", job.id, type(error))

    async def _discard(self, batch_id: str) -> None:
        try:
            await self.store.discard_batch(batch_id)
        except StoreConflict:  # opened after all: the answer to our commit was lost, and the batch is accepted
            logger.warning("batch %s was accepted although its submission was broken off", batch_id)


def as_row(request: Request) -> Row:
    """A request in any of its forms as the reader takes it. Raises RequestError."""
    if isinstance(request, str):
        return Row({"prompt": request})
    if isinstance(request, Mapping):
        return row_of(dict(request))
    if isinstance(request, Sequence):
        return Row({"messages": list(request)})
    raise RequestError("a request must be a prompt, a list of messages or an object")


def _priority(given: Priority | str) -> Priority:
    try:
        return Priority.named(given)
    except ValueError as error:
        raise RequestError(str(error), "priority") from None


async def _slices(
    requests: Iterable[Request] | AsyncIterable[Request], reader: JobReader
) -> AsyncIterator[list[NewJob]]:
    jobs: list[NewJob] = []
    number = 0
    async for request in _each(requests):
        number += 1
        try:
            job = reader.job(number, as_row(request))
        except RequestError as error:
            raise RequestError(f"request {number}: {error}", error.param, error.code) from None
        if not isinstance(job, NewJob):
            raise RequestError(f"request {number}: {job.reason}")
        jobs.append(job)
        if len(jobs) == SLICE:
            yield jobs
            jobs = []
    if jobs:
        yield jobs


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


def job_result(view: Mapping[str, Any]) -> JobResult:
    """From what the ledger shows of a job."""
    row = row_of_job(view)
    line = output_line(row) if row.state in TERMINAL_STATES else None
    succeeded = row.state is JobState.SUCCEEDED
    completion = line["response"]["body"] if line and succeeded else None
    return JobResult(
        job_id=row.job_id,
        custom_id=row.custom_id,
        state=row.state,
        completion=completion,
        text=completion_text(completion) if succeeded else None,
        error=error_text(line) if line and not succeeded else None,
        attempts=[attempt_as_shown(each) for each in view["attempts"]],
        cost_usd=cost_of(view["attempts"]),
    )
