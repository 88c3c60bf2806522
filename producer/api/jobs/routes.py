"""Jobs over HTTP: list, retrieve, wait for, cancel and acknowledge them; and the log of provider calls."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from understudy.models.failure import FailureClass
from understudy.models.jobs.submission import SINGLE
from understudy.models.objects.attempt import AttemptList
from understudy.models.objects.completion import ChatCompletion, Embeddings
from understudy.models.objects.job import JobList, JobObject, job_object
from understudy.models.objects.shapes import page_of
from understudy.models.request.wire import ErrorBody
from understudy.models.store.work.jobs import JobFilter
from understudy.producer.api.access.auth import Reader, Submitter
from understudy.producer.api.access.locality import root_of
from understudy.producer.api.context import Api
from understudy.producer.api.errors import ApiError, json_response, rejections
from understudy.producer.api.jobs.responses import (
    ACCEPTED,
    Prefer,
    Wait,
    cancel_job,
    held_job,
    job_response,
    outcome_of,
    own_job,
    preferred_wait_s,
)

router = APIRouter(prefix="/v1", tags=["jobs"])

ID_PATTERN: Final = r"^[A-Za-z0-9_-]*$"

State = Literal["queued", "scheduled", "running", "succeeded", "failed", "cancelled", "expired"]
Time = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False, description="Unix seconds.")]
Id = Annotated[str | None, Query(max_length=100, pattern=ID_PATTERN)]
Name = Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str, Query(max_length=100, pattern=ID_PATTERN, description="The id of the last item already seen.")]
Order = Literal["asc", "desc"]

NO_SUCCESS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
    "5XX": {"description": "Failed: the provider's status and error; 502 if there is none", "model": ErrorBody},
}


@router.get("/jobs", summary="List jobs", response_model=JobList, responses=rejections(400, 401, 403, 503))
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
    return json_response(page_of(data, has_more=len(views) > limit))


@router.get(
    "/jobs/{job_id}",
    summary="A job",
    response_model=JobObject,
    responses=rejections(400, 401, 403, 404, 503),
)
async def retrieve(
    request: Request, api: Api, caller: Reader, job_id: str, wait: Wait = 0, prefer: Prefer = None
) -> Response:
    """The response is 200 whatever the state of the job."""
    view, applied = await held_job(api, caller, job_id, preferred_wait_s(wait, prefer))
    return await job_response(request, api, view, applied, 200)


@router.get(
    "/jobs/{job_id}/result",
    summary="The result of a job",
    response_class=Response,
    responses={
        200: {"description": "Succeeded: the completion", "model": ChatCompletion | Embeddings},
        **ACCEPTED,
        **rejections(400, 401, 403, 404, 409, 410, 429, 502, 503),
        **NO_SUCCESS,
    },
)
async def result(
    request: Request, api: Api, caller: Reader, job_id: str, wait: Wait = 0, prefer: Prefer = None
) -> Response:
    """202: poll `Location` again after `Retry-After` seconds. Any other status is final, unless it has a `Retry-After`:
    then repeat the request."""
    view, applied = await held_job(api, caller, job_id, preferred_wait_s(wait, prefer))
    if not view.has_ended:
        return await job_response(request, api, view, applied, 202)
    return await outcome_of(api, view, applied)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    response_model=JobObject,
    responses=rejections(400, 401, 403, 404, 503),
)
async def cancel(request: Request, api: Api, caller: Submitter, job_id: str) -> Response:
    """A queued job is cancelled at once, a running job shortly after; a finished job is unchanged."""
    view = await own_job(api, caller, job_id)
    if not view.has_ended:
        await cancel_job(api, job_id)
        await api.store.audit.record_repeated(caller.actor, caller.tenant, "job.cancel", job_id)
        view = await own_job(api, caller, job_id)
    return await job_response(request, api, view, {}, 200)


@router.post(
    "/jobs/{job_id}/ack",
    summary="Acknowledge that you have received the result of a job",
    response_model=JobObject,
    responses=rejections(400, 401, 403, 404, 409, 503),
)
async def acknowledge(request: Request, api: Api, caller: Submitter, job_id: str) -> Response:
    """With `store_content = "until_delivered"`, its prompt and answer are deleted an hour later."""
    view = await own_job(api, caller, job_id)
    if view.batch_id != SINGLE:
        raise ApiError(409, f"{job_id} belongs to a batch; use POST /v1/batches/{view.batch_id}/ack", code="of_a_batch")
    if not await api.store.content.acknowledge("job", caller.tenant, job_id):
        raise ApiError(409, f"{job_id} has not ended yet", code="not_ended")
    await api.store.audit.record_repeated(caller.actor, caller.tenant, "job.ack", job_id)
    return await job_response(request, api, view, {}, 200)


@router.get("/attempts", summary="Provider calls", response_model=AttemptList, responses=rejections(400, 401, 403, 503))
async def attempts(
    api: Api,
    caller: Reader,
    batch_id: Id = None,
    job_id: Id = None,
    provider: Name = None,
    failure: FailureClass | Literal["answered"] | None = None,
    key: Name = None,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: After = "",
) -> Response:
    """Newest first. `failure`: a failure class, or `answered`. `key`: the name of a credential."""
    rows = await api.store.jobs.attempts(
        tenant=caller.tenant,
        batch_id=batch_id,
        job_id=job_id,
        provider=provider,
        failure=failure,
        key=key,
        since=since,
        until=until,
        limit=limit + 1,
        before=after,
        latest=True,
    )
    data = rows[::-1][:limit]
    return json_response(page_of(data, has_more=len(rows) > limit))
