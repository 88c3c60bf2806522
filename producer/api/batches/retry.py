"""Resuming and retrying batches over HTTP."""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from understudy.models.jobs.views import BatchView
from understudy.models.objects.batch import BatchObject
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import OPEN_BATCH_STATES, JobState
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.producer.api.access.admission import Taken, admitted
from understudy.producer.api.access.auth import Caller, Submitter
from understudy.producer.api.batches.routes import has_ended, own_batch, shown_batch
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError, rejections
from understudy.producer.runs.reruns import Retry, take_another_chain
from understudy.producer.runs.reruns import retry as rerun
from understudy.producer.runs.retry_chain import ENDED_BADLY
from understudy.producer.status.waiting import resumed

router = APIRouter(prefix="/v1/batches", tags=["batches"])

LEFT_OUT: Final = "Understudy-Left-Out"


@router.post(
    "/{batch_id}/resume",
    summary="Resume a paused batch",
    response_model=BatchObject,
    responses=rejections(400, 401, 403, 404, 503),
)
async def resume(
    api: Api,
    caller: Submitter,
    batch_id: str,
    budget_usd: Annotated[
        float | None, Query(gt=0, allow_inf_nan=False, description="New total budget in US dollars.")
    ] = None,
    model: Annotated[str | None, Query(description="Model for the waiting and the failed lines.")] = None,
    chain: Annotated[str | None, Query(description="Chain for the waiting and the failed lines.")] = None,
) -> Response:
    """A batch that spent its budget is granted the original amount again, or gets a new budget.

    With a model or chain, the waiting lines switch to it, and the failed lines are rerun with it as a new batch, listed
    in `understudy.retries`.
    """
    view = await own_batch(api, caller, batch_id)
    if (model or chain) and view.state in OPEN_BATCH_STATES:
        route = RouteOptions(model=model, chain=chain)
        async with _room(api, caller, _most(view)) as taken:
            _, again = await take_another_chain(api.store, api.settings, batch_id, route)
            taken.jobs = again.jobs
    total_usd = await api.store.budgets.grant_batch(batch_id, budget_usd)
    if not await api.store.batch_lifecycle.resume(batch_id):
        raise has_ended(view, "resumed")
    changed = resumed(view, total_usd, model, chain)
    await api.store.audit.record(caller.actor, caller.tenant, "batch.resume", batch_id, *changed)
    return await shown_batch(api, await own_batch(api, caller, batch_id))


@router.post(
    "/{batch_id}/retry",
    summary="Rerun the lines without an answer",
    response_model=BatchObject,
    responses=rejections(400, 401, 403, 404, 409, 429, 503),
)
async def retry(
    api: Api,
    caller: Submitter,
    batch_id: str,
    model: Annotated[str | None, Query(description="Model to use instead of the chain of the lines.")] = None,
    chain: Annotated[str | None, Query(description="Chain to use instead of that of the lines.")] = None,
    everything: Annotated[
        bool, Query(alias="all", description="Also rerun bad requests, refused content and crashed jobs.")
    ] = False,
    answered_by: Annotated[
        list[str] | None, Query(description="Rerun the lines that this provider answered instead. Repeatable.")
    ] = None,
) -> Response:
    """Creates a new batch with `understudy.retry_of`.

    The header `Understudy-Left-Out` counts the lines that are not rerun because they would fail the same way. 409:
    there is nothing to retry.
    """
    view = await own_batch(api, caller, batch_id)
    route = RouteOptions(model=model, chain=chain)
    async with _room(api, caller, _most(view, answered=bool(answered_by))) as taken:
        again, made = await rerun(
            api.store, api.settings, batch_id, route, everything=everything, answered_by=answered_by or ()
        )
        taken.jobs = again.jobs
    if again.batch_id is None:
        raise _nothing_to_retry(batch_id, again)
    await api.store.audit.record(caller.actor, caller.tenant, "batch.retry", batch_id, None, made)
    shown = await shown_batch(api, await own_batch(api, caller, again.batch_id))
    shown.headers[LEFT_OUT] = str(again.left_out.total())
    return shown


def _room(api: Context, caller: Caller, most: int) -> AbstractAsyncContextManager[Taken]:
    """For a batch of up to this many jobs; none of them need no room."""
    return admitted(api, caller, most, ROW_BYTES * most, batches=1) if most else nullcontext(Taken())


def _most(view: BatchView, *, answered: bool = False) -> int:
    """The maximum number of jobs in a retry of a batch."""
    states = {JobState.SUCCEEDED} if answered else ENDED_BADLY
    return sum(view.counts.get(state, 0) for state in states)


def _nothing_to_retry(batch_id: str, retry: Retry) -> ApiError:
    why = retry.left_out_words.replace("--all", "?all=true")
    return ApiError(409, f"there is nothing to retry in {batch_id}{why and f'; {why}'}", code="nothing_to_retry")
