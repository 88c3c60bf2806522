"""Single jobs: submitted, looked at, waited for, cancelled and listed."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from understudy.models.objects.job import LONGEST_RETRY_S, JobList, JobObject, has_ended, job_object, retry_after_s
from understudy.models.objects.shapes import page_of
from understudy.models.objects.waiting import WaitingObject
from understudy.models.records import SINGLE
from understudy.models.request.wire import ErrorBody, RequestError
from understudy.models.state import JobState, Priority
from understudy.models.store.jobs.of_tenant import JobFilter
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
from understudy.producer.status.job_waiting import waiting_of_job

router = APIRouter(prefix="/v1", tags=["jobs"])

ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
ID_PATTERN: Final = r"^[A-Za-z0-9_-]*$"
LONGEST_WAIT_S = 60
SOON_S = 5.0
"""For so long a job may be queued before it is found out why."""

PREFERRED_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?=[,;]|$)", re.IGNORECASE)

Wait = Annotated[int, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to hold the answer until the job has ended.")]
Prefer = Annotated[str | None, Header(description="`wait=N`: the same as the parameter.")]
Key = Annotated[str | None, Header(description="A name for this request: sent again, it makes nothing new.")]
State = Literal["queued", "scheduled", "running", "succeeded", "failed", "cancelled", "expired"]
Time = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False, description="Unix seconds.")]
Id = Annotated[str | None, Query(max_length=100, pattern=ID_PATTERN)]
Name = Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str, Query(max_length=100, pattern=ID_PATTERN, description="The id of the last one already seen.")]
Order = Literal["asc", "desc"]

HEADERS = {
    "Location": {"description": "Where the result will be", "schema": {"type": "string"}},
    "Retry-After": {"description": "In how many seconds to ask again", "schema": {"type": "integer"}},
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "Not ended yet: the job", "headers": HEADERS, "model": JobObject}
}
NO_SUCCESS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
    "5XX": {"description": "Failed: the provider's status and error; 502 when it gave none", "model": ErrorBody},
}


@router.post(
    "/jobs",
    summary="Submit a job",
    status_code=202,
    response_model=JobObject,
    openapi_extra=documented(JobRequest),
    responses={
        **ACCEPTED,
        200: {"description": "Ended while the answer was held: the job", "model": JobObject},
        **refusals(400, 401, 403, 404, 410, 413, 415, 422, 429, 503),
    },
)
async def submit(
    request: Request, api: Api, caller: Submitter, idempotency_key: Key = None, wait: Wait = 0, prefer: Prefer = None
) -> Response:
    """Accepted for good once it is answered with 202. `Location` is where the result will be."""
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
    return await _job_answer(request, api, view, applied, 200 if applied and has_ended(view) else 202)


@router.post(
    "/jobs:batch",
    summary="Submit up to 1,000 jobs",
    response_model=SubmittedJobs,
    openapi_extra=documented(JobsRequest),
    responses=refusals(400, 401, 403, 413, 415, 422, 429, 503),
)
async def submit_many(request: Request, api: Api, caller: Submitter, idempotency_key: Key = None) -> Response:
    """Each is accepted or refused on its own: `data` has one entry for each, in order, with `id` or `error`."""
    document = await read_json(request, api.settings.api.max_body_bytes)
    named = named_by(idempotency_key, "/v1/jobs:batch", document)
    made = await made_before(api, caller, named)
    if made is None:
        entries, jobs = await _judged(api, caller, document)
        answer = orjson.dumps({"object": "list", "data": entries}).decode()
        remembered = named if jobs else None  # what made nothing may be asked again, and would take room for ever
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
    """Newest first, or with `order=asc` oldest first. `provider` is who answered, or who gave the error."""
    wanted = JobFilter(state, batch_id, provider, created_after, created_before)
    views = await api.store.jobs.page(caller.tenant, wanted, limit=limit + 1, after=after, ascending=order == "asc")
    root = root_of(request, api.settings)
    data = [job_object(view, await api.store.get_chain(view["chain_id"]), root) for view in views[:limit]]
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
    """Answered with 200 whatever its state."""
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
    """202 means ask again, after `Retry-After` seconds, at `Location`. Anything else is final, but for what has a
    `Retry-After`: it is to be asked for again."""
    view, applied = await _held(api, caller, job_id, _wait_s(wait, prefer))
    if not has_ended(view):
        return await _job_answer(request, api, view, applied, 202)
    return await outcome_of(api, view, applied)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    response_model=JobObject,
    responses=refusals(400, 401, 403, 404, 503),
)
async def cancel(request: Request, api: Api, caller: Submitter, job_id: str) -> Response:
    """A queued job is cancelled at once, one that runs in a moment, one that has ended stays as it is."""
    view = await _own(api, caller, job_id)
    if not has_ended(view):
        await cancel_job(api, job_id)
        await api.store.audit.record_repeated(caller.actor, caller.tenant, "job.cancel", job_id)
        view = await _own(api, caller, job_id)
    return await _job_answer(request, api, view, {}, 200)


@router.post(
    "/jobs/{job_id}/ack",
    summary="Say that you have the result of a job",
    response_model=JobObject,
    responses=refusals(400, 401, 403, 404, 409, 503),
)
async def acknowledge(request: Request, api: Api, caller: Submitter, job_id: str) -> Response:
    """Where only undelivered content is kept, its prompt and answer are removed an hour later."""
    view = await _own(api, caller, job_id)
    if view["batch_id"] != SINGLE:
        raise ApiError(409, f"{job_id} belongs to a batch; POST /v1/batches/{view['batch_id']}/ack", code="of_a_batch")
    if not await api.store.retention.acknowledge("job", caller.tenant, job_id):
        raise ApiError(409, f"{job_id} has not ended yet", code="not_ended")
    await api.store.audit.record_repeated(caller.actor, caller.tenant, "job.ack", job_id)
    return await _job_answer(request, api, view, {}, 200)


async def _judged(api: Context, caller: Caller, document: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """An entry for each of the `jobs`, and those that are accepted."""
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


async def _own(api: Context, caller: Caller, job_id: str, gone: int = 404) -> dict[str, Any]:
    """Raises ApiError when the caller's tenant has no such job."""
    view = await api.store.jobs.seen(caller.tenant, job_id) if ID.fullmatch(job_id) else None
    if view is None:
        code = "not_found" if gone == 404 else "job_pruned"
        known = job_id if ID.fullmatch(job_id) else "of this id"
        raise ApiError(gone, f"there is no job {known}" + (" any more" if gone == 410 else ""), code=code)
    return view


async def _held(
    api: Context, caller: Caller, job_id: str, wait_s: int | None, gone: int = 404
) -> tuple[dict[str, Any], dict[str, str]]:
    """The job as it stands, or as it stands once it has ended or the time is over; and the headers that say so."""
    view = await _own(api, caller, job_id, gone)
    if wait_s is None:
        return view, {}
    if wait_s and not has_ended(view):
        await api.waiters.ended(job_id, wait_s)
        view = await _own(api, caller, job_id, gone)
    return view, {"Preference-Applied": f"wait={wait_s}"}


def _wait_s(wait: int, prefer: str | None) -> int | None:
    """How long the caller would wait, by the parameter or by the header; None when neither says so."""
    if wait:
        return wait
    preferred = PREFERRED_WAIT.search(prefer or "")
    return min(int(preferred[1]), LONGEST_WAIT_S) if preferred else None


def _retry_after_s(view: Mapping[str, Any], waiting: WaitingObject | None) -> int:
    """What waits for a person is not asked for every other second."""
    return LONGEST_RETRY_S if waiting is not None and waiting["who_can_help"] else retry_after_s(view)


async def _job_answer(
    request: Request, api: Context, view: dict[str, Any], applied: Mapping[str, str], status: int
) -> Response:
    chain, waiting = await api.store.get_chain(view["chain_id"]), None
    if view["state"] == JobState.QUEUED and view["now"] - view["created_at"] > SOON_S:
        waiting = await waiting_of_job(api.settings, api.store, api.redis, view, view["now"])
    shown = job_object(view, chain, root_of(request, api.settings), waiting)
    headers = dict(applied)
    if status == 202:
        headers["Location"] = shown["links"]["result"]
    if status == 202 or not has_ended(view):
        headers["Retry-After"] = str(_retry_after_s(view, shown["waiting"]))
    return Response(orjson.dumps(shown), status, headers, media_type=JSON)
