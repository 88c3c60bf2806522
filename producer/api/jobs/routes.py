"""Single jobs: submit, retrieve, wait, cancel and list."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from understudy.models.jobs.submission import SINGLE
from understudy.models.jobs.views import JobView
from understudy.models.objects.job import LONGEST_RETRY_S, JobList, JobObject, job_object, retry_after_s
from understudy.models.objects.shapes import page_of
from understudy.models.objects.waiting import WaitingObject
from understudy.models.request.wire import ErrorBody, RequestError
from understudy.models.state import JobState, Priority
from understudy.models.store.work.jobs import JobFilter
from understudy.producer.api.access.auth import Caller, Reader, Submitter
from understudy.producer.api.bodies import documented, read_json
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import JSON, ApiError, refusals
from understudy.producer.api.jobs.cancel import cancel_job
from understudy.producer.api.jobs.links import root_of
from understudy.producer.api.jobs.requests import MOST_JOBS, JobRequest, JobsRequest, SubmittedJobs
from understudy.producer.api.jobs.results import outcome_of
from understudy.producer.api.jobs.submission import accept, job_of, made_before
from understudy.producer.single_jobs import JOBS_PATH, named_by
from understudy.producer.status.waiting import waiting_of_job

router = APIRouter(prefix="/v1", tags=["jobs"])

ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
ID_PATTERN: Final = r"^[A-Za-z0-9_-]*$"
LONGEST_WAIT_S = 60
SOON_S = 5.0
"""Seconds a job may be queued before its wait reason is determined."""

PREFERRED_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?=[,;]|$)", re.IGNORECASE)

Wait = Annotated[
    int, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the job to end before responding.")
]
Prefer = Annotated[str | None, Header(description="`wait=N`: same as the parameter.")]
Key = Annotated[str | None, Header(description="A name for this request: repeating it creates nothing new.")]
State = Literal["queued", "scheduled", "running", "succeeded", "failed", "cancelled", "expired"]
Time = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False, description="Unix seconds.")]
Id = Annotated[str | None, Query(max_length=100, pattern=ID_PATTERN)]
Name = Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str, Query(max_length=100, pattern=ID_PATTERN, description="The id of the last item already seen.")]
Order = Literal["asc", "desc"]

HEADERS = {
    "Location": {"description": "URL of the result", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until the next poll", "schema": {"type": "integer"}},
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "Not finished yet: the job", "headers": HEADERS, "model": JobObject}
}
NO_SUCCESS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
    "5XX": {"description": "Failed: the provider's status and error; 502 if there is none", "model": ErrorBody},
}


@router.post(
    "/jobs",
    summary="Submit a job",
    status_code=202,
    response_model=JobObject,
    openapi_extra=documented(JobRequest),
    responses={
        **ACCEPTED,
        200: {"description": "Finished while waiting: the job", "model": JobObject},
        **refusals(400, 401, 403, 404, 410, 413, 415, 422, 429, 503),
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
    view, applied = await _held(api, caller, job_id, _wait_s(wait, prefer), gone=410)
    return await _job_answer(request, api, view, applied, 200 if applied and view.has_ended else 202)


@router.post(
    "/jobs:batch",
    summary="Submit up to 1,000 jobs",
    response_model=SubmittedJobs,
    openapi_extra=documented(JobsRequest),
    responses=refusals(400, 401, 403, 413, 415, 422, 429, 503),
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


@router.get("/jobs", summary="List jobs", response_model=JobList, responses=refusals(400, 401, 403, 503))
async def listing(
    request: Request,
    api: Api,
    caller: Reader,
    state: State | None = None,
    batch_id: Id = None,
    provider: Name = None,
    created_after: Time = None,
    created_before: Time = None,
    limit: Limit = 20,
    after: After = "",
    order: Order = "desc",
) -> Response:
    """Newest first, or with `order=asc` oldest first. `provider`: the one that returned the answer or the error."""
    wanted = JobFilter(state, batch_id, provider, created_after, created_before)
    views = await api.store.jobs.page(caller.tenant, wanted, limit=limit + 1, after=after, ascending=order == "asc")
    root = root_of(request, api.settings)
    data = [job_object(view, await api.store.get_chain(view.chain_id), root) for view in views[:limit]]
    return Response(orjson.dumps(page_of(data, has_more=len(views) > limit)), media_type=JSON)


@router.get(
    "/jobs/{job_id}",
    summary="A job",
    response_model=JobObject,
    responses=refusals(400, 401, 403, 404, 503),
)
async def retrieve(
    request: Request, api: Api, caller: Reader, job_id: str, wait: Wait = 0, prefer: Prefer = None
) -> Response:
    """The response is 200 whatever the state of the job."""
    view, applied = await _held(api, caller, job_id, _wait_s(wait, prefer))
    return await _job_answer(request, api, view, applied, 200)


@router.get(
    "/jobs/{job_id}/result",
    summary="The result of a job",
    response_class=Response,
    responses={
        200: {"description": "Succeeded: the completion"},
        **ACCEPTED,
        **refusals(400, 401, 403, 404, 409, 410, 429, 502, 503),
        **NO_SUCCESS,
    },
)
async def result(
    request: Request, api: Api, caller: Reader, job_id: str, wait: Wait = 0, prefer: Prefer = None
) -> Response:
    """202: poll `Location` again after `Retry-After` seconds. Any other status is final, unless it has a `Retry-After`:
    then repeat the request."""
    view, applied = await _held(api, caller, job_id, _wait_s(wait, prefer))
    if not view.has_ended:
        return await _job_answer(request, api, view, applied, 202)
    return await outcome_of(api, view, applied)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    response_model=JobObject,
    responses=refusals(400, 401, 403, 404, 503),
)
async def cancel(request: Request, api: Api, caller: Submitter, job_id: str) -> Response:
    """A queued job is cancelled at once, a running job shortly after; a finished job is unchanged."""
    view = await _own(api, caller, job_id)
    if not view.has_ended:
        await cancel_job(api, job_id)
        await api.store.audit.record_repeated(caller.actor, caller.tenant, "job.cancel", job_id)
        view = await _own(api, caller, job_id)
    return await _job_answer(request, api, view, {}, 200)


@router.post(
    "/jobs/{job_id}/ack",
    summary="Acknowledge that you have received the result of a job",
    response_model=JobObject,
    responses=refusals(400, 401, 403, 404, 409, 503),
)
async def acknowledge(request: Request, api: Api, caller: Submitter, job_id: str) -> Response:
    """With `store_content = "until_delivered"`, its prompt and answer are deleted an hour later."""
    view = await _own(api, caller, job_id)
    if view.batch_id != SINGLE:
        raise ApiError(409, f"{job_id} belongs to a batch; use POST /v1/batches/{view.batch_id}/ack", code="of_a_batch")
    if not await api.store.content.acknowledge("job", caller.tenant, job_id):
        raise ApiError(409, f"{job_id} has not ended yet", code="not_ended")
    await api.store.audit.record_repeated(caller.actor, caller.tenant, "job.ack", job_id)
    return await _job_answer(request, api, view, {}, 200)


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


async def _own(api: Context, caller: Caller, job_id: str, gone: int = 404) -> JobView:
    """Raises ApiError when the caller's tenant has no such job."""
    view = await api.store.jobs.view(job_id, caller.tenant) if ID.fullmatch(job_id) else None
    if view is None:
        code = "not_found" if gone == 404 else "job_pruned"
        known = job_id if ID.fullmatch(job_id) else "of this id"
        raise ApiError(gone, f"there is no job {known}" + (" any more" if gone == 410 else ""), code=code)
    return view


async def _held(
    api: Context, caller: Caller, job_id: str, wait_s: int | None, gone: int = 404
) -> tuple[JobView, dict[str, str]]:
    """The job, after waiting for it to end for up to `wait_s`, and the response headers that say so."""
    view = await _own(api, caller, job_id, gone)
    if wait_s is None:
        return view, {}
    if wait_s and not view.has_ended:
        await api.waiters.ended(job_id, wait_s)
        view = await _own(api, caller, job_id, gone)
    return view, {"Preference-Applied": f"wait={wait_s}"}


def _wait_s(wait: int, prefer: str | None) -> int | None:
    """How long the caller is willing to wait, by parameter or header; None when neither is given."""
    if wait:
        return wait
    preferred = PREFERRED_WAIT.search(prefer or "")
    return min(int(preferred[1]), LONGEST_WAIT_S) if preferred else None


def _retry_after_s(view: JobView, waiting: WaitingObject | None) -> int:
    """Seconds until the next poll: long when the job waits for a person."""
    return LONGEST_RETRY_S if waiting is not None and waiting["who_can_help"] else retry_after_s(view)


async def _job_answer(
    request: Request, api: Context, view: JobView, applied: Mapping[str, str], status: int
) -> Response:
    chain, waiting = await api.store.get_chain(view.chain_id), None
    if view.state is JobState.QUEUED and view.now - view.created_at > SOON_S:
        waiting = await waiting_of_job(api.settings, api.store, api.redis, view)
    shown = job_object(view, chain, root_of(request, api.settings), waiting)
    headers = dict(applied)
    if status == 202:
        headers["Location"] = shown["links"]["result"]
    if status == 202 or not view.has_ended:
        headers["Retry-After"] = str(_retry_after_s(view, shown["waiting"]))
    return Response(orjson.dumps(shown), status, headers, media_type=JSON)
