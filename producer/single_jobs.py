"""Single jobs, over HTTP and from Python: their fields, idempotency keys and tickets."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewJob
from understudy.models.queue import keys, tickets
from understudy.models.request.endpoints import ENDPOINTS
from understudy.models.request.tokens import most_output_tokens
from understudy.models.request.wire import RequestError, write_json
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.request_options import refuse_misspelt
from understudy.models.routing.route import Router, schemas_to_check
from understudy.models.state import JobState, Priority
from understudy.models.store import Store
from understudy.models.store.work.intake import NamedRequest
from understudy.producer import request_fields as words
from understudy.producer.ingest.input_rows import checked_id

log = logging.getLogger(__name__)

OUR_WORDS = frozenset(words.JobFields.model_fields)

JOBS_PATH = "/v1/jobs"
"""The path for submitting single jobs, also part of the hash of their named requests."""

MOST_NAME_CHARS = 255


def single_job(
    document: Mapping[str, Any],
    router: Router,
    settings: Settings,
    tenant: str,
    *,
    priority: Priority,
    endpoint: Endpoint,
) -> tuple[NewJob, list[dict[str, Any]]]:
    """The job described by a body, and the schemas to check before it is accepted (`check_schemas`).

    `priority`: default for a body without one. Raises RequestError.
    """
    request = dict(document)
    refuse_misspelt(request, OUR_WORDS)
    said = {word: request.pop(word, None) for word in words.JOB_WORDS}
    request = ENDPOINTS[endpoint].canonical(request)
    ENDPOINTS[endpoint].check(request)
    job_id = new_id("job")
    custom_id = checked_id(said["custom_id"]) or job_id
    chain, body = router.route(request, custom_id)
    job = NewJob(
        id=job_id,
        body=write_json(body).decode(),
        chain=chain,
        custom_id=custom_id,
        tokens=ENDPOINTS[endpoint].estimate_tokens(body),
        max_output_tokens=most_output_tokens(body),
        priority=words.priority(said["priority"], priority),
        tenant=tenant,
        expires_in_s=words.lifetime(said["expires_in_s"], settings.deadline_s),
        callback_url=words.receiver(said["callback_url"], "callback_url", settings),
        metadata=words.metadata(said["metadata"]),
    )
    return job, schemas_to_check(chain, body)


def named_by(key: str | None, path: str, document: Mapping[str, Any]) -> NamedRequest | None:
    """An Idempotency-Key with a hash of the path and the normalized body. Raises RequestError."""
    if key is None:
        return None
    check_key(key)
    return NamedRequest(key, hashlib.sha256(path.encode() + b"\n" + write_json(document, in_order=True)).hexdigest())


def check_key(key: str) -> None:
    """Raises RequestError for an invalid Idempotency-Key."""
    if not 1 <= len(key) <= MOST_NAME_CHARS or not (key.isascii() and key.isprintable()):
        raise RequestError(
            f"an Idempotency-Key must have 1 to {MOST_NAME_CHARS} printable ASCII characters", "Idempotency-Key"
        )


async def stage(redis: Redis, tenant: str, jobs: Sequence[NewJob], clock: Callable[[], float]) -> None:
    """Stage tickets for jobs in the ledger, so that they start within milliseconds unless others are ahead."""
    if not jobs:
        return
    try:
        await tickets.stage_at_once(redis, tenant, jobs, clock)
    except (RedisError, OSError) as error:
        log.warning(
            "%d jobs are accepted, but Redis is unreachable (%s): they start later", len(jobs), type(error).__name__
        )


async def cancel_job(store: Store, redis: Redis | None, job_id: str) -> JobState | None:
    """Cancel a job that has not ended; a running job is stopped by its worker shortly. Returns its new state.

    The ledger decides. Its worker, or those waiting for it, are notified at once; otherwise they would notice within a
    second. Raises StoreError.
    """
    state = await store.jobs.cancel(job_id)
    if redis is None:
        return state
    holder = await store.jobs.holder_of(job_id) if state is JobState.RUNNING else None
    try:
        if state is JobState.CANCELLED:
            await redis.publish(keys.ENDED, job_id)
        elif holder is not None:
            await tickets.ask_to_stop(redis, holder, job_id)
    except (RedisError, OSError) as error:
        log.warning("cancellation of %s is noticed by polling, Redis is unreachable: %s", job_id, type(error).__name__)
    return state
