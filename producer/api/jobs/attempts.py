"""The log of provider calls."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Response

from understudy.models.failure import FailureClass
from understudy.models.objects.attempt import AttemptList
from understudy.models.objects.shapes import page_of
from understudy.producer.api.access.auth import Reader
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON, refusals
from understudy.producer.api.jobs.routes import After, Id, Name, Time

router = APIRouter(prefix="/v1", tags=["jobs"])

Limit = Annotated[int, Query(ge=1, le=1_000)]


@router.get("/attempts", summary="Provider calls", response_model=AttemptList, responses=refusals(400, 401, 403, 503))
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
    limit: Limit = 100,
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
    return Response(orjson.dumps(page_of(data, has_more=len(rows) > limit)), media_type=JSON)
