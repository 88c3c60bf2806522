"""Fills a batch from a program's requests: all or none, and once per idempotency key."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.request.wire import RequestError
from understudy.models.routing.data_rules import Rules
from understudy.models.store import Store, StoreConflict
from understudy.models.store.work.intake import NamedRequest
from understudy.producer.client.reading import Digest, Requests, slices_of, slices_of_lines
from understudy.producer.client.submitting import unless_other
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ingest.intake import JobReader, read_jobs
from understudy.producer.runs.preflight import Preflight
from understudy.producer.single_jobs import check_key

logger = logging.getLogger(__name__)


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
    if key is not None:
        check_key(key)
    digest = None if key is None else Digest(said)
    if key is not None and digest is not None and isinstance(requests, Path):
        await asyncio.to_thread(digest.add_file, requests)
        made = await unless_other(store.intake.made_by(new.tenant, NamedRequest(key, digest.hexdigest())))
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
        if key is None or digest is None:
            await store.intake.open_batch(new.id, total, endpoint, estimate)
            batch_id = new.id
        else:
            named = NamedRequest(key, digest.hexdigest())
            opened = store.intake.open_named(new.id, total, endpoint, estimate, new.tenant, named)
            batch_id = await unless_other(opened)
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
        return slices_of_lines(read_jobs(requests, reader))
    for word, value in (("prompt", shape.prompt), ("id_column", shape.id_column)):
        if value is not None:
            raise RequestError(f"'{word}' applies only to a CSV file given as a Path", word)
    if isinstance(requests, str | bytes | Mapping):
        raise RequestError("a batch consists of many requests: pass a list of them, or the Path of a file", "requests")
    return slices_of(requests, reader, digest)
