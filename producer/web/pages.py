"""The pages: overview, batches, one batch, one job, providers."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from understudy.models.api_keys import Scope
from understudy.models.disabled import DisabledCredential
from understudy.models.objects.batch import BatchObject
from understudy.models.objects.job import job_object
from understudy.models.state import OPEN_BATCH_STATES, JobState
from understudy.models.store.work.jobs import JobFilter
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.api.access.administration import allowed_providers
from understudy.producer.api.batches import retry as resuming
from understudy.producer.api.batches import routes as batches
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError
from understudy.producer.api.jobs.responses import own_job
from understudy.producer.runs.retry_chain import ENDED_BADLY
from understudy.producer.status.documents import batch_documents
from understudy.producer.status.failed_calls import most_frequent_failures
from understudy.producer.status.waiting import waiting_of_job
from understudy.producer.web.access import Acting, Viewer, Viewing
from understudy.producer.web.conversation import answer_text, messages_of
from understudy.producer.web.rendering import PageRoute, render

router = APIRouter(route_class=PageRoute, include_in_schema=False)

LATEST = 50
"""Batches considered for the overview."""

ENDED_SHOWN = 8
PAGE = 25
JOBS_SHOWN = 50
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

After = Annotated[str, Query(max_length=200, pattern=batches.ID_CHARS)]
State = Annotated[JobState | None, Query()]


@router.get("/")
async def overview(request: Request, api: Api, viewer: Viewing) -> Response:
    """What runs, what needs a person, and what ended last."""
    found = await batch_documents(api.store, api.redis, await api.store.batches.page(viewer.caller.tenant, LATEST))
    running = [each for each in found if each["status"] not in ENDED]
    return render(
        request,
        "overview",
        viewer=viewer,
        running=[each for each in running if not _needs_a_person(each)],
        stuck=[each for each in running if _needs_a_person(each)],
        ended=[each for each in found if each["status"] in ENDED][:ENDED_SHOWN],
        disabled=await _disabled(api, viewer),
    )


@router.get("/batches")
async def all_batches(request: Request, api: Api, viewer: Viewing, after: After = "") -> Response:
    views = await api.store.batches.page(viewer.caller.tenant, PAGE + 1, after)
    found = await batch_documents(api.store, api.redis, views[:PAGE])
    older = found[-1]["id"] if len(views) > PAGE else None
    return render(request, "batches", viewer=viewer, found=found, older=older, after=after)


@router.get("/batches/{batch_id}")
async def one_batch(
    request: Request, api: Api, viewer: Viewing, batch_id: str, state: State = None, after: After = ""
) -> Response:
    view = await batches.own_batch(api, viewer.caller, batch_id)
    (shown,) = await batch_documents(api.store, api.redis, [view])
    wanted = JobFilter(state=state, batch_id=batch_id)
    rows = await api.store.jobs.page(viewer.caller.tenant, wanted, limit=JOBS_SHOWN + 1, after=after, ascending=True)
    jobs = [job_object(row, await api.store.get_chain(row.chain_id), "") for row in rows[:JOBS_SHOWN]]
    return render(
        request,
        "batch",
        viewer=viewer,
        batch=shown,
        jobs=jobs,
        more=jobs[-1]["id"] if len(rows) > JOBS_SHOWN else None,
        state=state,
        states=list(JobState),
        failures=await most_frequent_failures(api.store, [view]),
        may_retry=view.state not in OPEN_BATCH_STATES and any(view.counts.get(each) for each in ENDED_BADLY),
    )


@router.post("/batches/{batch_id}/{act}")
async def act_on_batch(api: Api, by: Acting, batch_id: str, act: str) -> Response:
    """Pause, resume or cancel a batch, or retry its lines without an answer, as over HTTP."""
    if act == "pause":
        await batches.pause(api, by.caller, batch_id)
    elif act == "resume":
        await resuming.resume(api, by.caller, batch_id, None, None, None)
    elif act == "cancel":
        await batches.cancel(api, by.caller, batch_id)
    elif act == "retry":
        made = await resuming.retry(api, by.caller, batch_id, None, None, everything=False, answered_by=None)
        batch_id = orjson.loads(made.body)["id"]
    else:
        raise ApiError(404, f"a batch cannot be told to {act[:40]}")
    return RedirectResponse(f"/batches/{batch_id}", 303)


@router.get("/jobs/{job_id}")
async def one_job(request: Request, api: Api, viewer: Viewing, job_id: str) -> Response:
    """The story of a job: what it asked, each call, what it waits for, and the answer."""
    row = await own_job(api, viewer.caller, job_id)
    waiting = await waiting_of_job(api.settings, api.store, api.redis, row)
    shown = job_object(row, await api.store.get_chain(row.chain_id), "", waiting)
    asked = await api.store.reruns.asked(job_id)
    return render(
        request,
        "job",
        viewer=viewer,
        job=shown,
        messages=messages_of(orjson.loads(asked.body)) if asked else [],
        answer=await _answer(api, job_id) if row.state is JobState.SUCCEEDED else None,
    )


@router.get("/providers")
async def providers(request: Request, api: Api, viewer: Viewing) -> Response:
    if not viewer.may(Scope.ADMIN):
        raise ApiError(403, "the state of the providers is for keys with scope admin", code="missing_scope")
    found = await allowed_providers(api, viewer.caller)
    return render(request, "providers", viewer=viewer, found=found["data"], live=found["live"])


async def _answer(api: Context, job_id: str) -> str | None:
    body = await api.store.jobs.answer(job_id)
    return None if body is None else answer_text(orjson.loads(body))


async def _disabled(api: Context, viewer: Viewer) -> list[DisabledCredential]:
    """For the operator's administrators, who can enable them."""
    is_operator = viewer.may(Scope.ADMIN) and viewer.caller.tenant == DEFAULT_TENANT
    return await api.store.credentials.listed() if is_operator else []


def _needs_a_person(batch: BatchObject) -> bool:
    own: Any = batch["understudy"]
    return bool(own["paused"] or own["blocked"] or own["who_can_help"])
