"""Accepting single jobs: from the body of a request to rows of the ledger and tickets in the queue.

Accepted means committed: whatever is answered with success has its rows in the ledger. The queue is told afterwards;
where it cannot be reached, the planner finds the jobs.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from redis.exceptions import RedisError

from models import tickets
from models.chain import CHAT, Endpoint
from models.ending import end_if_cancelled
from models.endpoints import ENDPOINTS
from models.ids import new_id
from models.records import NewJob
from models.route_words import refuse_misspelt
from models.routing import check_schemas, schemas_to_check
from models.state import Priority
from models.store.filling import NamedRequest, OtherRequest
from models.store.jobs import Made
from models.store.room import ROW_BYTES, text_bytes
from models.tokens import most_output_tokens
from models.wire import ROUTE_WORDS, RequestError
from producer.api import words
from producer.api.admission import admit, give_back
from producer.api.auth import Caller
from producer.api.context import Context
from producer.api.errors import ApiError
from producer.api.quotas import admit_bytes
from producer.intake import checked_id

log = logging.getLogger(__name__)

JOB_WORDS = ("priority", "callback_url", "metadata", "expires_in_s", "custom_id")
"""The words of a body that are about the job. Those about routing are `models.wire.ROUTE_WORDS`."""

OUR_WORDS = frozenset({*JOB_WORDS, *ROUTE_WORDS})

LONGEST_DEADLINE_S = 7 * 86_400
MOST_NAME_CHARS = 255


async def job_of(
    api: Context, caller: Caller, document: Mapping[str, Any], *, priority: Priority, endpoint: Endpoint = CHAT
) -> NewJob:
    """The job that a body asks for; `priority` is for one that names none. Raises RequestError, StoreError."""
    request = dict(document)
    refuse_misspelt(request, OUR_WORDS)
    said = {word: request.pop(word, None) for word in JOB_WORDS}
    request = ENDPOINTS[endpoint].canonical(request)
    ENDPOINTS[endpoint].check(request)
    job_id = new_id("job")
    custom_id = checked_id(said["custom_id"]) or job_id
    chain, body = (await api.router(caller.tenant, endpoint)).route(request, custom_id)
    if schemas := schemas_to_check(chain, body):
        await api.schemas.run(caller.tenant, check_schemas, schemas)
    return NewJob(
        id=job_id,
        body=_as_json(body),
        chain=chain,
        custom_id=custom_id,
        tokens=ENDPOINTS[endpoint].estimate_tokens(body),
        max_output_tokens=most_output_tokens(body),
        priority=words.priority(said["priority"], priority),
        tenant=caller.tenant,
        expires_in_s=_lifetime(said["expires_in_s"], api.settings.deadline_s),
        callback_url=words.receiver(said["callback_url"], "callback_url", api.settings),
        metadata=words.metadata(said["metadata"]),
    )


async def accept(
    api: Context,
    caller: Caller,
    jobs: Sequence[NewJob],
    named: NamedRequest | None = None,
    answer: str | None = None,
) -> Made | None:
    """Accept all of them, or none. Returns None, or what the same named request made before: nothing is accepted then.

    `answer` is remembered with the name. Raises ApiError (429 there is no room, 422 the name belongs to another
    request), RequestError and StoreError.
    """
    await admit(api, caller, len(jobs))
    made, kept = None, False
    try:
        await admit_bytes(api, caller, sum(ROW_BYTES + text_bytes(each.body) for each in jobs))
        made = await api.store.accept_jobs(caller.tenant, jobs, named, answer)
        kept = made is None
    except OtherRequest as error:
        raise _other_request(error) from None
    finally:
        if not kept:
            give_back(api, caller, len(jobs))
    if kept:
        end_if_cancelled()
        await stage(api, caller.tenant, jobs)
    return made


async def made_before(api: Context, caller: Caller, named: NamedRequest | None) -> Made | None:
    """What the same named request made: asked before its body is judged, because the configuration may have changed.

    Raises ApiError when the name belongs to another request.
    """
    try:
        return await api.store.made_by(caller.tenant, named) if named else None
    except OtherRequest as error:
        raise _other_request(error) from None


def _other_request(error: OtherRequest) -> ApiError:
    return ApiError(422, str(error), param="Idempotency-Key", code="idempotency_key_reused")


def named_by(key: str | None, path: str, document: Mapping[str, Any]) -> NamedRequest | None:
    """The header Idempotency-Key with what it names: a body, however it is spelled, sent to a path.

    Raises RequestError.
    """
    if key is None:
        return None
    if not 1 <= len(key) <= MOST_NAME_CHARS or not (key.isascii() and key.isprintable()):
        raise RequestError(
            f"the header Idempotency-Key must have 1 to {MOST_NAME_CHARS} printable ASCII characters",
            "Idempotency-Key",
        )
    return NamedRequest(key, hashlib.sha256(path.encode() + b"\n" + _sorted_json(document)).hexdigest())


async def stage(api: Context, tenant: str, jobs: Sequence[NewJob]) -> None:
    """Tickets for jobs that are in the ledger, so that they start in milliseconds where no others wait before them."""
    if not jobs:
        return
    try:
        await tickets.stage_at_once(api.redis, tenant, jobs, api.clock)
    except (RedisError, OSError) as error:
        log.warning(
            "%d jobs are accepted, but Redis cannot be told (%s): they start later", len(jobs), type(error).__name__
        )


def _lifetime(value: object, default_s: float) -> float:
    if value is None:
        return default_s
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_DEADLINE_S:
        raise RequestError(
            f"'expires_in_s' must be a number of seconds above 0 and at most {LONGEST_DEADLINE_S:,} (7 days)",
            "expires_in_s",
        )
    return float(value)


def _sorted_json(document: Mapping[str, Any]) -> bytes:
    """The same bytes for bodies that say the same: callers that retry may write their JSON once more."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # nested too deep
        raise RequestError(f"the body cannot be written as JSON again: {error}", code="invalid_json") from None


def _as_json(body: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(body).decode()
    except TypeError as error:  # nested too deep; orjson does not quote what it refuses
        raise RequestError(f"the body cannot be written as JSON again: {error}", code="invalid_json") from None
