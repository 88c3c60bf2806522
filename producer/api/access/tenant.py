"""A tenant as seen and changed by its administrators. Limits are set by the operator on the command line."""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from understudy.models.config.settings import Settings
from understudy.models.tenants import NO_LIMIT, StoreContent, TenantLimits
from understudy.producer.api.access.auth import Administrator, Caller
from understudy.producer.api.access.quotas import batches_limit, stored_limit
from understudy.producer.api.bodies import checked, documented, read_json
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON, refusals

router = APIRouter(prefix="/v1/tenant", tags=["administration"])

MAX_BODY_BYTES = 65_536


class TenantChange(BaseModel):
    """The settings an administrator may change."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    store_content: StoreContent | None
    """How long prompts and answers are stored: `always`, or `until_delivered`, which deletes them an hour after the
    owner has the answers. Null: as configured for the installation."""


class TenantObject(BaseModel):
    """A tenant. A limit of null means no limit."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    object: str = "tenant"
    jobs_per_minute: int | None
    queued_jobs: int | None
    usd_per_month: float | None
    stored_bytes: int | None
    """Maximum size of stored uploads, prompts, answers and rows."""
    open_batches: int | None
    """Maximum number of unfinished batches."""
    store_content: StoreContent


@router.get("", response_model=TenantObject, responses=refusals(401, 403, 503), summary="Your tenant")
async def retrieve(api: Api, caller: Administrator) -> Response:
    return await _answer(api, caller)


@router.patch(
    "",
    response_model=TenantObject,
    responses=refusals(400, 401, 403, 413, 415, 503),
    openapi_extra=documented(TenantChange),
    summary="Change how long your tenant's prompts and answers are stored",
)
async def change(request: Request, api: Api, caller: Administrator) -> Response:
    document = await read_json(request, MAX_BODY_BYTES)
    asked = checked(TenantChange, document)
    await api.store.tenants.set_store_content(caller.tenant, asked.store_content, actor=caller.actor)
    return await _answer(api, caller)


async def _answer(api: Api, caller: Caller) -> Response:
    limits = (await api.store.tenants.use(caller.tenant, api.clock())).limits
    return Response(orjson.dumps(_document(limits, api.settings, caller)), media_type=JSON)


def _document(limits: TenantLimits, settings: Settings, caller: Caller) -> dict[str, Any]:
    most, most_batches = stored_limit(settings, limits, caller), batches_limit(settings, limits, caller)
    return {
        "name": limits.name,
        "object": "tenant",
        "jobs_per_minute": limits.jobs_per_minute,
        "queued_jobs": limits.queued_jobs,
        "usd_per_month": limits.usd_per_month,
        "stored_bytes": None if most == NO_LIMIT else most,
        "open_batches": None if most_batches == NO_LIMIT else most_batches,
        "store_content": limits.store_content or settings.store_content,
    }
