"""Submission of single jobs: from a request body to rows in the ledger and tickets in the queue.

Accepted means committed: a success response implies rows in the ledger. The queue is notified afterwards; if it is
unreachable, the planner finds the jobs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from understudy.models.cancellation import end_if_cancelled
from understudy.models.jobs.submission import NewJob
from understudy.models.objects.job import JobObject
from understudy.models.request.wire import ErrorBody, ErrorDetail, RequestError
from understudy.models.routing.chain import CHAT, Endpoint
from understudy.models.routing.route import check_schemas
from understudy.models.state import Priority
from understudy.models.store.database.disk_space import job_bytes, text_bytes
from understudy.models.store.work.intake import Made, NamedRequest
from understudy.producer.api.access.admission import admitted
from understudy.producer.api.access.auth import Caller, Submitter
from understudy.producer.api.bodies import documented, read_json
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import JSON, ApiError, rejections
from understudy.producer.api.jobs.responses import ACCEPTED, Prefer, Wait, held_job, job_response, preferred_wait_s
from understudy.producer.request_fields import JobFields
from understudy.producer.single_jobs import JOBS_PATH, named_by, single_job, stage

router = APIRouter(prefix="/v1", tags=["jobs"])

Key = Annotated[str | None, Header(description="A name for this request: repeating it creates nothing new.")]

MOST_JOBS = 1_000

EXAMPLE: JsonDict = {"messages": [{"role": "user", "content": "Say hello."}], "metadata": {"flow": "invoices"}}


class JobRequest(JobFields):
    """A chat-completion body with additional fields. Fields not listed here are passed to the provider unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    messages: list[dict[str, Any]] = Field(min_length=1)
    """The conversation, as for a chat completion."""


class JobsRequest(BaseModel):
    """Up to 1,000 jobs, each accepted or rejected individually."""

    jobs: list[JobRequest] = Field(min_length=1, max_length=MOST_JOBS)


class SubmittedJob(BaseModel):
    """The outcome for one of the jobs: either `id` or `error`."""

    index: int
    id: str | None
    custom_id: str | None
    error: ErrorDetail | None


class SubmittedJobs(BaseModel):
    object: Literal["list"]
    data: list[SubmittedJob]


@router.post(
    "/jobs",
    summary="Submit a job",
    status_code=202,
    response_model=JobObject,
    openapi_extra=documented(JobRequest),
    responses={
        **ACCEPTED,
        200: {"description": "Finished while waiting: the job", "model": JobObject},
        **rejections(400, 401, 403, 404, 410, 413, 415, 422, 429, 503),
    },
)
async def submit(
    request: Request, api: Api, caller: Submitter, idempotency_key: Key = None, wait: Wait = 0, prefer: Prefer = None
) -> Response:
    """Once the response is 202, the job is durably accepted. `Location` is the URL of the result."""
    document = await read_json(request, api.settings.api.max_body_bytes)
    named = named_by(idempotency_key, JOBS_PATH, document)
    made = await made_before(api, caller, named)
    if made is None:
        job = await job_of(api, caller, document, priority=Priority.NORMAL)
        made = await accept(api, caller, [job], named)
        job_id = made.object_id if made else job.id
    else:
        job_id = made.object_id
    view, applied = await held_job(api, caller, job_id, preferred_wait_s(wait, prefer), gone=410)
    return await job_response(request, api, view, applied, 200 if applied and view.has_ended else 202)


@router.post(
    "/jobs:batch",
    summary="Submit up to 1,000 jobs",
    response_model=SubmittedJobs,
    openapi_extra=documented(JobsRequest),
    responses=rejections(400, 401, 403, 413, 415, 422, 429, 503),
)
async def submit_many(request: Request, api: Api, caller: Submitter, idempotency_key: Key = None) -> Response:
    """Each job is accepted or rejected individually: `data` has one entry per job, in order, with `id` or `error`."""
    document = await read_json(request, api.settings.api.max_body_bytes)
    named = named_by(idempotency_key, "/v1/jobs:batch", document)
    made = await made_before(api, caller, named)
    if made is None:
        entries, jobs = await _judged(api, caller, document)
        answer = orjson.dumps({"object": "list", "data": entries}).decode()
        remembered = named if jobs else None  # what created nothing may be repeated, and would take space forever
        made = await accept(api, caller, jobs, remembered, answer)
        if made is None:
            return Response(answer, media_type=JSON)
    if made.answer is None:
        raise ApiError(422, "this Idempotency-Key was used for another request", code="idempotency_key_reused")
    return Response(made.answer, media_type=JSON)


async def _judged(api: Context, caller: Caller, document: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """An entry for each of the `jobs`, and the accepted jobs."""
    given = document.get("jobs")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_JOBS:
        raise RequestError(f"'jobs' must be a list of 1 to {MOST_JOBS:,} jobs", "jobs")
    entries: list[dict[str, Any]] = []
    jobs = []
    for index, each in enumerate(given):
        entry: dict[str, Any] = {"index": index, "id": None, "custom_id": None, "error": None}
        try:
            if not isinstance(each, dict):
                raise RequestError("a job must be an object")
            job = await job_of(api, caller, each, priority=Priority.NORMAL)
            jobs.append(job)
            entry |= {"id": job.id, "custom_id": job.custom_id}
        except RequestError as error:
            entry |= ErrorBody.of(error).model_dump()
        entries.append(entry)
    return entries, jobs


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
    size = sum(job_bytes(jobs)) + (text_bytes(answer) if named else 0)
    async with admitted(api, caller, len(jobs), size) as taken:
        made = await api.store.intake.accept_jobs(caller.tenant, jobs, named, answer)
        taken.jobs = len(jobs) if made is None else 0
    if made is None:
        end_if_cancelled()
        await stage(api.redis, caller.tenant, jobs, api.clock)
    return made


async def made_before(api: Context, caller: Caller, named: NamedRequest | None) -> Made | None:
    """What an earlier request with the same name created. Checked before validating the body, because the configuration
    may have changed.

    Raises OtherRequest.
    """
    return await api.store.intake.made_by(caller.tenant, named) if named else None
