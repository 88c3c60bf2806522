"""Administration over HTTP: a tenant's keys and audit log. Limits are set on the command line."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from understudy.models.api_keys import Scope, new_key
from understudy.models.objects.administration import ActObject, KeyObject, act_object, key_object
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
    responses={**REFUSALS, **refusals(413, 415)},
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
    return Response(orjson.dumps(shown), 201, {"Cache-Control": "no-store"}, media_type=JSON)


@router.get(
    "/keys", response_model=KeyList, responses=REFUSALS, summary="List the keys of your tenant, without secrets"
)
async def list_keys(api: Api, caller: Administrator) -> Response:
    records = await api.store.api_keys.listed(caller.tenant)
    return _json({"object": "list", "data": [key_object(each, api.clock()) for each in records]})


@router.delete(
    "/keys/{key_id}",
    response_model=KeyObject,
    responses={**REFUSALS, **refusals(404)},
    summary="Revoke a key of your tenant; it is rejected within seconds",
)
async def revoke_key(key_id: KeyId, api: Api, caller: Administrator) -> Response:
    await api.store.api_keys.revoke(key_id, tenant=caller.tenant, actor=caller.actor)
    api.keyring.forget()
    record = await api.store.api_keys.find(key_id)
    if record is None or record.tenant != caller.tenant:
        raise ApiError(404, "there is no such key; GET /v1/keys lists yours", param="key_id", code="not_found")
    return _json(key_object(record, api.clock()))


@router.get("/audit", response_model=ActList, responses=REFUSALS, summary="List administrative actions, newest first")
async def audit(
    api: Api,
    caller: Administrator,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: Annotated[str, Query(max_length=100, description="Id of the last action already seen.")] = "",
) -> Response:
    acts = await api.store.audit.entries(caller.tenant, limit + 1, after)
    data = [act_object(each) for each in acts[:limit]]
    return _json({"object": "list", "data": data, "has_more": len(acts) > limit})


def _json(document: object) -> Response:
    return Response(orjson.dumps(document), media_type=JSON)
