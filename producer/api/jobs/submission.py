"""Accepts single jobs: from a request body to rows in the ledger and tickets in the queue.

Accepted means committed: a success response implies rows in the ledger. The queue is notified afterwards; if it is
unreachable, the planner finds the jobs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.models.cancellation import end_if_cancelled
from understudy.models.jobs.submission import NewJob
from understudy.models.routing.chain import CHAT, Endpoint
from understudy.models.routing.route import check_schemas
from understudy.models.state import Priority
from understudy.models.store.database.disk_space import job_bytes, text_bytes
from understudy.models.store.work.intake import Made, NamedRequest
from understudy.producer.api.access.admission import admit, give_back
from understudy.producer.api.access.auth import Caller
from understudy.producer.api.access.quotas import admit_bytes
from understudy.producer.api.context import Context
from understudy.producer.single_jobs import single_job, stage


async def job_of(
    api: Context, caller: Caller, document: Mapping[str, Any], *, priority: Priority, endpoint: Endpoint = CHAT
) -> NewJob:
    """The job described by a body. `priority`: the default. Raises RequestError, StoreError."""
    router = await api.router(caller.tenant, endpoint)
    job, schemas = single_job(document, router, api.settings, caller.tenant, priority=priority, endpoint=endpoint)
    if schemas:
        await api.schemas.run(caller.tenant, check_schemas, schemas)
    return job


async def accept(
    api: Context,
    caller: Caller,
    jobs: Sequence[NewJob],
    named: NamedRequest | None = None,
    answer: str | None = None,
) -> Made | None:
    """Accept all jobs or none. Returns None, or what an earlier request with the same name created: then nothing is
    accepted.

    `answer` is stored with the name. Raises ApiError (429: no capacity), RequestError, StoreError, and
    OtherRequest if the name belongs to another request.
    """
    await admit(api, caller, len(jobs))
    made, kept = None, False
    try:
        remembered = text_bytes(answer) if named else 0
        await admit_bytes(api, caller, remembered + sum(job_bytes(jobs)))
        made = await api.store.intake.accept_jobs(caller.tenant, jobs, named, answer)
        kept = made is None
    finally:
        if not kept:
            give_back(api, caller, len(jobs))
    if kept:
        end_if_cancelled()
        await stage(api.redis, caller.tenant, jobs, api.clock)
    return made


async def made_before(api: Context, caller: Caller, named: NamedRequest | None) -> Made | None:
    """What an earlier request with the same name created. Checked before validating the body, because the configuration
    may have changed.

    Raises OtherRequest.
    """
    return await api.store.intake.made_by(caller.tenant, named) if named else None
