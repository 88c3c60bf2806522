"""The client for async code.

Accepting means committing to the ledger: once `submit` or `submit_batch` has returned, the work will be completed,
whatever crashes. The queue is notified afterwards; if it is unreachable, the planner finds the jobs.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.jobs.views import BatchView
from understudy.models.objects.job import SCHEDULED
from understudy.models.request.wire import RequestError
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import JobState, Priority, PriorityWord
from understudy.models.store.work.jobs import JobFilter
from understudy.models.tenants import USUAL_WEIGHT
from understudy.producer import request_fields as words
from understudy.producer.audit_actor import python_program
from understudy.producer.client.connection import Connection
from understudy.producer.client.errors import NotPossible, WaitTimeout
from understudy.producer.client.results import Batch, Job, Page, Result
from understudy.producer.client.submission import (
    Request,
    Requests,
    Routing,
    accept,
    accept_one,
    asked_for,
    fill,
    route_of,
)
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ledger import UnknownId, cancel_batch
from understudy.producer.runs.other_chain import job_again
from understudy.producer.runs.output import row_of_job
from understudy.producer.runs.reruns import Retry, retry, take_another_chain
from understudy.producer.runs.retry_chain import rows_of
from understudy.producer.single_jobs import cancel_job
from understudy.producer.status.waiting import resumed

POLL_S = 0.05
POLL_MAX_S = 1.0
MOST_AT_ONCE = 1_000

Listed = TypeVar("Listed", Job, Batch)


class AsyncClient(Connection):
    """Submits work and reads its results. Safe for concurrent use by tasks of one event loop.

    async with AsyncClient() as client:
        job = await client.submit("Say hello in Latin.", model="openai/gpt-4o-mini")
        print((await client.wait(job.id, timeout_s=60)).text)

    It works directly on the ledger, with the same rights as the understudy commands: limits of tenants over HTTP do not
    apply, data rules do. For its exceptions see `producer.client.errors`.
    """

    async def submit(
        self,
        request: Request,
        *,
        priority: PriorityWord | None = None,
        expires_in_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        custom_id: str | None = None,
        idempotency_key: str | None = None,
        **routing: Unpack[Routing],
    ) -> Job:
        """Submit one job: a prompt, a list of messages, or the whole body of a chat completion or embeddings request.

        Fields that the HTTP API accepts in the body are accepted here, too, and override the arguments. The default
        priority is `normal`. The job expires after `expires_in_s` seconds (default 24 hours unless configured
        otherwise, at most 7 days). `callback_url` receives a signed webhook when the job ends. A repeated request with
        the same `idempotency_key` returns the existing job. Raises RequestError.
        """
        arguments = {
            "priority": priority,
            "expires_in_s": expires_in_s,
            "metadata": None if metadata is None else dict(metadata),
            "callback_url": callback_url,
        }
        asked = asked_for(request, arguments, custom_id, routing)
        job_id = await accept_one(self._store, self._settings, self._redis, self._tenant, asked, idempotency_key)
        return await self.get(job_id)

    async def get(self, job_id: str) -> Job:
        """The current state of a job. Raises UnknownId."""
        view = await self._store.jobs.view(job_id, self._tenant)
        if view is None:
            raise UnknownId(job_id, "job")
        return Job.of(view, await self._store.get_chain(view.chain_id))

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Result:
        """Wait for a job to end and return its result, even if it failed: then `Result.text` raises; check `Result.ok`.

        Raises WaitTimeout (the job continues), UnknownId.
        """
        await self.get(job_id)
        await self._ended(job_id, timeout_s)
        view = await self._store.jobs.view(job_id)
        if view is None:
            raise UnknownId(job_id, "job")
        return Result.of(row_of_job(view, await self._store.jobs.answer(job_id)))

    async def list_jobs(
        self,
        *,
        state: JobState | str | None = None,
        batch_id: str | None = None,
        provider: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        limit: int = 20,
        after: str = "",
    ) -> Page[Job]:
        """Jobs, newest first. `provider`: the one that returned the answer or the error. Times are Unix seconds.
        `after`: the `next_after` of the previous page."""
        wanted = JobFilter(_checked(state), batch_id, provider, created_after, created_before)
        _check_limit(limit)
        views = await self._store.jobs.page(self._tenant, wanted, limit=limit + 1, after=after)
        return _page([Job.of(view, await self._store.get_chain(view.chain_id)) for view in views], limit)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job: at once if it is queued, shortly after if it is running. A finished job is unchanged."""
        job = await self.get(job_id)
        if job.ended:
            return job
        await cancel_job(self._store, self._redis, job_id)
        await self._store.audit.record_repeated(python_program(), self._tenant, "job.cancel", job_id)
        return await self.get(job_id)

    async def retry(self, job_id: str, *, model: str | None = None, chain: str | None = None) -> Job:
        """Submit a job that ended without an answer again and return the new job. It uses the same data rules and,
        unless `model` or `chain` is given, the same chain.

        Raises NotPossible when it has not ended, has an answer, belongs to a batch, or its request was deleted.
        """
        old = await self.get(job_id)
        if old.batch_id is not None:
            raise NotPossible(f"{job_id} belongs to a batch; use retry_batch('{old.batch_id}')")
        if not old.ended or old.state is JobState.SUCCEEDED:
            raise NotPossible(f"{job_id} is {old.state}; only jobs that ended without an answer can be retried")
        job = await job_again(self._store, self._settings, job_id, RouteOptions(model=model, chain=chain))
        if job is None:
            raise NotPossible(f"the request of {job_id} was deleted from the ledger; submit it again")
        job.expires_in_s = old.expires_at - old.created_at
        job.callback_url, job.metadata = old.callback_url, dict(old.metadata) or None
        await accept(self._store, self._redis, job)
        await self._store.audit.record(python_program(), self._tenant, "job.retry", job_id, None, {"job": job.id})
        return await self.get(job.id)

    async def submit_batch(
        self,
        requests: Requests,
        *,
        priority: PriorityWord = "bulk",
        expires_in_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        budget_usd: float | None = None,
        weight: float = USUAL_WEIGHT,
        source: str = "",
        prompt: str | None = None,
        system: str | None = None,
        id_column: str | None = None,
        idempotency_key: str | None = None,
        **routing: Unpack[Routing],
    ) -> Batch:
        """Submit many jobs as one batch, all or none, with constant memory.

        `requests` is an iterable, an async iterable, or the Path of a file in any format that `understudy submit`
        reads; for CSV, `prompt` is the template (`"Describe {name}"`) and `id_column` the column with the ids. A
        request may have a `custom_id`, which its result repeats; the default is its number. The first bad request
        rejects the whole batch and is named in the error. At `budget_usd` (US dollars), the batch pauses until
        `resume_batch`. `weight` is its share of capacity relative to other batches. A repeated submission with the same
        `idempotency_key` and the same requests returns the existing batch. Raises RequestError, InputError.
        """
        route, said = route_of(routing)
        new = NewBatch(
            new_id("batch"),
            words.priority(priority, Priority.BULK),
            tenant=self._tenant,
            expires_at=await self._store.now() + words.lifetime(expires_in_s, self._settings.deadline_s),
            source=source or (requests.name if isinstance(requests, Path) else ""),
            metadata=words.metadata(None if metadata is None else dict(metadata)) or {},
            callback_url=words.receiver(callback_url, "callback_url", self._settings),
            budget_usd=words.budget(budget_usd),
            weight=words.weight(weight),
        )
        shape = Shape(prompt, system, id_column, route)
        said |= {"priority": priority, "budget_usd": budget_usd, "metadata": new.metadata, "weight": weight}
        said |= {"expires_in_s": expires_in_s, "callback_url": callback_url, "shape": [prompt, system, id_column]}
        batch_id = await fill(self._store, self._settings, new, requests, shape, said=said, key=idempotency_key)
        return await self.get_batch(batch_id)

    async def get_batch(self, batch_id: str) -> Batch:
        """The current state of a batch, without its retries. Raises UnknownId."""
        return Batch.of(await self._batch(batch_id))

    async def wait_batch(self, batch_id: str, timeout_s: float | None = None) -> Batch:
        """Wait for a batch to end and return it. A paused batch does not end. Raises WaitTimeout, UnknownId."""
        await self._batch(batch_id)
        await self._ended(batch_id, timeout_s)
        return await self.get_batch(batch_id)

    async def list_batches(self, *, limit: int = 20, after: str = "") -> Page[Batch]:
        """Batches, newest first. `after`: the `next_after` of the previous page."""
        _check_limit(limit)
        views = await self._store.batches.page(self._tenant, limit + 1, after)
        return _page([Batch.of(view) for view in views], limit)

    async def results(self, batch_id: str) -> AsyncGenerator[Result, None]:
        """The results of all finished jobs so far, in the order of the input. Answers of retries replace the original
        failures. Raises UnknownId."""
        await self._batch(batch_id)
        async for row in rows_of(self._store, batch_id):
            yield Result.of(row)

    async def pause_batch(self, batch_id: str, reason: str = "paused by its owner") -> Batch:
        """Pause a batch: calls in flight continue, no further jobs start. Raises NotPossible when it has ended."""
        view = await self._batch(batch_id)
        if not await self._store.batch_lifecycle.pause(batch_id, reason):
            raise _has_ended(view, "paused")
        return await self._recorded("batch.pause", batch_id, None, {"paused": reason})

    async def resume_batch(
        self,
        batch_id: str,
        *,
        budget_usd: float | None = None,
        model: str | None = None,
        chain: str | None = None,
    ) -> Batch:
        """Resume a paused batch. If it has spent its budget, the original amount is granted again, or `budget_usd`
        becomes the new total. With a model or chain, the waiting jobs switch to it, and the failed jobs are retried
        with it.

        Raises NotPossible when it has ended, RequestError, RetryUnderWay.
        """
        view = await self._batch(batch_id)
        if Batch.of(view).ended:
            raise _has_ended(view, "resumed")
        if model is not None or chain is not None:
            await take_another_chain(self._store, self._settings, batch_id, RouteOptions(model=model, chain=chain))
        total_usd = await self._store.budgets.grant_batch(batch_id, words.budget(budget_usd))
        if not await self._store.batch_lifecycle.resume(batch_id):
            raise _has_ended(view, "resumed")
        return await self._recorded("batch.resume", batch_id, *resumed(view, total_usd, model, chain))

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel a batch. Finished jobs keep their results, calls in flight are aborted. A finished batch is
        unchanged."""
        await self._batch(batch_id)
        if not await cancel_batch(self._store, batch_id):
            return await self.get_batch(batch_id)
        return await self._recorded("batch.cancel", batch_id)

    async def retry_batch(
        self,
        batch_id: str,
        *,
        model: str | None = None,
        chain: str | None = None,
        everything: bool = False,
        answered_by: Sequence[str] = (),
    ) -> Batch:
        """Rerun the jobs that ended without an answer, and return the new batch. `results` of the old batch includes
        its answers.

        Bad requests, refused content and crashed jobs are left out, because they would fail again, unless `everything`
        is true. With `answered_by`, the lines that these providers answered are rerun instead. Raises NotPossible when
        there is nothing to retry, RequestError, RetryUnderWay.
        """
        await self._batch(batch_id)
        route = RouteOptions(model=model, chain=chain)
        again, made = await retry(
            self._store, self._settings, batch_id, route, everything=everything, answered_by=answered_by
        )
        if again.batch_id is None:
            raise _nothing_to_retry(batch_id, again)
        await self._recorded("batch.retry", batch_id, None, made)
        return await self.get_batch(again.batch_id)

    async def _batch(self, batch_id: str) -> BatchView:
        view = await self._store.batches.view(batch_id)
        if view is None or view.tenant != self._tenant:
            raise UnknownId(batch_id, "batch")
        return view

    async def _ended(self, id_: str, timeout_s: float | None) -> None:
        pause_s, until = POLL_S, math.inf if timeout_s is None else time.monotonic() + timeout_s
        while id_ not in await self._store.jobs.ended_among([id_]):
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise WaitTimeout(id_, timeout_s)
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, POLL_MAX_S)

    async def _recorded(
        self, action: str, batch_id: str, old: dict[str, Any] | None = None, new: dict[str, Any] | None = None
    ) -> Batch:
        await self._store.audit.record(python_program(), self._tenant, action, batch_id, old, new)
        return await self.get_batch(batch_id)


def _checked(state: JobState | str | None) -> str | None:
    if state in (None, SCHEDULED, *JobState):
        return state
    raise RequestError(f"'state' must be one of {', '.join(JobState)} or {SCHEDULED}", "state")


def _page(items: Sequence[Listed], limit: int) -> Page[Listed]:
    """A page. `items` contains one more than `limit` if there are more."""
    return Page(tuple(items[:limit]), items[limit - 1].id if len(items) > limit else None)


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MOST_AT_ONCE:
        raise RequestError(f"'limit' must be from 1 to {MOST_AT_ONCE:,}; follow next_after for more", "limit")


def _has_ended(view: BatchView, what: str) -> NotPossible:
    return NotPossible(f"{view.id} is {view.state}; it can no longer be {what}")


def _nothing_to_retry(batch_id: str, again: Retry) -> NotPossible:
    why = again.left_out_words.replace("--all", "everything=True")
    return NotPossible(f"there is nothing to retry in {batch_id}{why and f'; {why}'}")
