"""Administration over HTTP: a tenant, its keys and audit log, and the state of the providers. Limits are set on the
command line."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from understudy.models.api_keys import Scope, new_key
from understudy.models.objects.administration import ActObject, KeyObject, act_object, key_object
from understudy.models.objects.provider import ProviderList, ProviderObject
from understudy.models.routing.allowlist import Allowed
from understudy.models.tenants import NO_LIMIT, StoreContent
from understudy.producer.api.access.admission import batches_limit, stored_limit
from understudy.producer.api.access.auth import Administrator, Caller
from understudy.producer.api.bodies import checked, documented, read_json
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError, json_response, rejections
from understudy.producer.status.provider_state import live_of, provider_documents, read_ledger

router = APIRouter(prefix="/v1", tags=["administration"])

MAX_BODY_BYTES = 64 * 1024
TEN_YEARS_S = 10 * 366 * 86_400
REJECTIONS = rejections(400, 401, 403, 503)

KeyId = Annotated[str, Path(description="The middle part of a key.", max_length=100)]


class KeyRequest(BaseModel):
    """A key to create for the caller's tenant."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")  # shown on terminals
    scopes: list[Scope] = Field(min_length=1)
    expires_in_s: float | None = Field(default=None, gt=0, le=TEN_YEARS_S)


class CreatedKey(KeyObject):
    """A newly created key. `key` is shown only once."""

    key: str


class KeyList(TypedDict):
    object: Literal["list"]
    data: list[KeyObject]


class ActList(TypedDict):
    object: Literal["list"]
    data: list[ActObject]
    has_more: bool


@router.post(
    "/keys",
    status_code=201,
    response_model=CreatedKey,
    responses={**REJECTIONS, **rejections(413, 415)},
    openapi_extra=documented(KeyRequest),
    summary="Create a key for your tenant; it is shown only once",
)
async def create_key(request: Request, api: Api, caller: Administrator) -> Response:
    document = await read_json(request, MAX_BODY_BYTES)
    asked = checked(KeyRequest, document)
    expires_at = None if asked.expires_in_s is None else api.clock() + asked.expires_in_s
    made = new_key()
    record = await api.store.api_keys.add(
        made, tenant=caller.tenant, name=asked.name, scopes=asked.scopes, expires_at=expires_at, actor=caller.actor
    )
    api.keyring.forget()
    shown = {**key_object(record, api.clock()), "key": made.text}
    return json_response(shown, 201)


@router.get(
    "/keys", response_model=KeyList, responses=REJECTIONS, summary="List the keys of your tenant, without secrets"
)
async def list_keys(api: Api, caller: Administrator) -> Response:
    records = await api.store.api_keys.listed(caller.tenant)
    return json_response({"object": "list", "data": [key_object(each, api.clock()) for each in records]})


@router.delete(
    "/keys/{key_id}",
    response_model=KeyObject,
    responses={**REJECTIONS, **rejections(404)},
    summary="Revoke a key of your tenant; it is rejected within seconds",
)
async def revoke_key(key_id: KeyId, api: Api, caller: Administrator) -> Response:
    await api.store.api_keys.revoke(key_id, tenant=caller.tenant, actor=caller.actor)
    api.keyring.forget()
    record = await api.store.api_keys.find(key_id)
    if record is None or record.tenant != caller.tenant:
        raise ApiError(404, "there is no such key; GET /v1/keys lists yours", param="key_id", code="not_found")
    return json_response(key_object(record, api.clock()))


@router.get("/audit", response_model=ActList, responses=REJECTIONS, summary="List administrative actions, newest first")
async def audit(
    api: Api,
    caller: Administrator,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: Annotated[str, Query(max_length=100, description="Id of the last action already seen.")] = "",
) -> Response:
    acts = await api.store.audit.entries(caller.tenant, limit + 1, after)
    data = [act_object(each) for each in acts[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(acts) > limit})


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


@router.get(
    "/tenant", name="retrieve", response_model=TenantObject, responses=rejections(401, 403, 503), summary="Your tenant"
)
async def retrieve_tenant(api: Api, caller: Administrator) -> Response:
    return await _tenant(api, caller)


@router.patch(
    "/tenant",
    name="change",
    response_model=TenantObject,
    responses=rejections(400, 401, 403, 413, 415, 503),
    openapi_extra=documented(TenantChange),
    summary="Change how long your tenant's prompts and answers are stored",
)
async def change_tenant(request: Request, api: Api, caller: Administrator) -> Response:
    document = await read_json(request, MAX_BODY_BYTES)
    asked = checked(TenantChange, document)
    await api.store.tenants.set_store_content(caller.tenant, asked.store_content, actor=caller.actor)
    return await _tenant(api, caller)


async def _tenant(api: Api, caller: Caller) -> Response:
    settings, limits = api.settings, (await api.store.tenants.use(caller.tenant, api.clock())).limits
    most, most_batches = stored_limit(settings, limits, caller), batches_limit(settings, limits, caller)
    tenant = TenantObject(
        name=limits.name,
        jobs_per_minute=limits.jobs_per_minute,
        queued_jobs=limits.queued_jobs,
        usd_per_month=limits.usd_per_month,
        stored_bytes=None if most == NO_LIMIT else most,
        open_batches=None if most_batches == NO_LIMIT else most_batches,
        store_content=limits.store_content or settings.store_content,
    )
    return json_response(tenant.model_dump())


@router.get(
    "/providers",
    response_model=ProviderList,
    responses=rejections(401, 403, 503),
    summary="Limits, usage and cooldowns of each provider, key and model",
)
async def providers(api: Api, caller: Administrator) -> Response:
    """Values cover the whole installation, since tenants share its providers. Lists only what your tenant may use."""
    return json_response(await allowed_providers(api, caller))


async def allowed_providers(api: Context, caller: Caller) -> ProviderList:
    """The providers that the caller's tenant may use. Raises StoreError."""
    ledger = await read_ledger(api.store)
    live = await live_of(api.redis, api.settings, ledger)
    allowed = Allowed(api.settings, (await api.rules.of(api.store, caller.tenant)).allow)
    documents = provider_documents(api.settings, ledger, live)
    data = [_for_tenants(each) for each in documents if allowed.was_accepted(f"{each['provider']}/{each['model']}")]
    return {"object": "list", "live": live is not None, "data": data}


def _for_tenants(document: ProviderObject) -> ProviderObject:
    """Without fields that may contain an internal address or quote another tenant's request."""
    shown = document.copy()
    shown.pop("base_url", None)
    shown["disabled"] = [row.copy() for row in document["disabled"]]
    for row in shown["disabled"]:
        row.pop("reason", None)
    return shown
