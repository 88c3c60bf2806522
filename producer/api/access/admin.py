"""Administration over HTTP: a tenant's keys and audit log. Limits are set on the command line."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from understudy.models.api_keys import KeyRecord, Scope, new_key
from understudy.producer.api.access.auth import Administrator
from understudy.producer.api.bodies import checked, documented, read_json
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON, ApiError, refusals

router = APIRouter(prefix="/v1", tags=["administration"])

MAX_BODY_BYTES = 64 * 1024
TEN_YEARS_S = 10 * 366 * 86_400
REFUSALS = refusals(400, 401, 403, 503)

KeyId = Annotated[str, Path(description="The middle part of a key.", max_length=100)]


class KeyRequest(BaseModel):
    """A key to create for the caller's tenant."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")  # shown on terminals
    scopes: list[Scope] = Field(min_length=1)
    expires_in_s: float | None = Field(default=None, gt=0, le=TEN_YEARS_S)


class Key(BaseModel):
    """A key without its secret."""

    id: str
    object: str = "api_key"
    name: str
    tenant: str
    scopes: list[Scope]
    state: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class CreatedKey(Key):
    """A newly created key. `key` is shown only once."""

    key: str


class KeyList(BaseModel):
    object: str = "list"
    data: list[Key]


class Act(BaseModel):
    """An administrative action."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    object: str = "audit"
    at: float
    actor: str
    tenant: str
    action: str
    subject: str
    old: dict[str, Any] | None
    """The values before the change."""
    new: dict[str, Any] | None
    """The values after the change."""
    times: int
    """How often it happened; frequent actions are combined into one entry per hour."""
    last_at: float | None
    """When it happened last, if more than once."""


class ActList(BaseModel):
    object: str = "list"
    data: list[Act]
    has_more: bool


@router.post(
    "/keys",
    status_code=201,
    response_model=CreatedKey,
    responses={**REFUSALS, **refusals(413, 415)},
    openapi_extra=documented(KeyRequest),
    summary="Create a key for your tenant; it is shown only once",
)
async def create_key(request: Request, api: Api, caller: Administrator) -> Response:
    document = await read_json(request, MAX_BODY_BYTES)
    asked = checked(KeyRequest, document)
    expires_at = None if asked.expires_in_s is None else api.clock() + asked.expires_in_s
    made = new_key()
    record = await api.store.tenants.add_key(
        made, tenant=caller.tenant, name=asked.name, scopes=asked.scopes, expires_at=expires_at, actor=caller.actor
    )
    api.keyring.forget()
    shown = {**key_document(record, api.clock()), "key": made.text}
    return Response(orjson.dumps(shown), 201, {"Cache-Control": "no-store"}, media_type=JSON)


@router.get(
    "/keys", response_model=KeyList, responses=REFUSALS, summary="List the keys of your tenant, without secrets"
)
async def list_keys(api: Api, caller: Administrator) -> Response:
    records = await api.store.tenants.keys(caller.tenant)
    return _json({"object": "list", "data": [key_document(each, api.clock()) for each in records]})


@router.delete(
    "/keys/{key_id}",
    response_model=Key,
    responses={**REFUSALS, **refusals(404)},
    summary="Revoke a key of your tenant; it is rejected within seconds",
)
async def revoke_key(key_id: KeyId, api: Api, caller: Administrator) -> Response:
    await api.store.tenants.revoke_key(key_id, tenant=caller.tenant, actor=caller.actor)
    api.keyring.forget()
    record = await api.store.tenants.key(key_id)
    if record is None or record.tenant != caller.tenant:
        raise ApiError(404, "there is no such key; GET /v1/keys lists yours", param="key_id", code="not_found")
    return _json(key_document(record, api.clock()))


@router.get("/audit", response_model=ActList, responses=REFUSALS, summary="List administrative actions, newest first")
async def audit(
    api: Api,
    caller: Administrator,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: Annotated[str, Query(max_length=100, description="Id of the last action already seen.")] = "",
) -> Response:
    acts = await api.store.audit.entries(caller.tenant, limit + 1, after)
    data = [{"object": "audit", **each} for each in acts[:limit]]
    return _json({"object": "list", "data": data, "has_more": len(acts) > limit})


def key_document(record: KeyRecord, now: float) -> dict[str, Any]:
    """A key as the API and the commands show it."""
    return {
        "id": record.id,
        "object": "api_key",
        "name": record.name,
        "tenant": record.tenant,
        "scopes": sorted(record.scopes),
        "state": record.state(now),
        "created_at": int(record.created_at),
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "revoked_at": None if record.revoked_at is None else int(record.revoked_at),
    }


def _json(document: object) -> Response:
    return Response(orjson.dumps(document), media_type=JSON)
