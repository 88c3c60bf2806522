"""A tenant's webhook endpoints, signing secrets and delivery log."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from understudy.models.objects.shapes import Page, page_of
from understudy.models.objects.webhook import (
    BatchEvent,
    DeliveryObject,
    EndpointObject,
    JobEvent,
    delivery_object,
    endpoint_object,
)
from understudy.models.request.wire import RequestError
from understudy.models.webhook_events import EVENTS, PATTERNS
from understudy.models.webhook_receivers import MAX_URL, RefusedReceiver, check_receiver
from understudy.models.webhook_signing import SECRET_READ, callback_owner
from understudy.producer.api.access.auth import Administrator, Caller
from understudy.producer.api.bodies import checked, documented, read_json
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError, json_response, rejections

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

MAX_BODY_BYTES = 64 * 1024
MOST_ENDPOINTS = 100
REJECTIONS = rejections(400, 401, 403, 503)
ID = r"^[A-Za-z0-9_-]{1,100}$"

EndpointId = Annotated[str, Path(pattern=ID, description="Id of an endpoint.")]
DeliveryId = Annotated[str, Path(pattern=ID, description="The webhook-id of a delivery.")]
Word = Annotated[str, Field(max_length=512)]


class EndpointRequest(BaseModel):
    """An endpoint to create for the caller's tenant."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=MAX_URL)
    events: list[str] = Field(default=["*"], min_length=1, max_length=20)
    match: dict[Word, Word] | None = Field(default=None, max_length=16)


class EndpointWithSecret(EndpointObject):
    """`secret` is shown only once."""

    secret: str


class EndpointList(TypedDict):
    object: Literal["list"]
    data: list[EndpointObject]


class Deleted(BaseModel):
    id: str
    object: str = "webhook_endpoint.deleted"
    deleted: bool = True


class Secret(BaseModel):
    """The secret that signs webhooks to the callback URLs of a tenant's jobs and batches."""

    object: str = "webhook_secret"
    secret: str


class DeliveryList(Page):
    data: list[DeliveryObject]


events = APIRouter()
"""Webhook payloads, for the OpenAPI document."""


@events.post("job", summary="A job has ended", status_code=204)
async def job_event(event: JobEvent) -> None:
    """Any 2xx counts as delivered."""


@events.post("batch", summary="A batch has ended, was paused or was resumed", status_code=204)
async def batch_event(event: BatchEvent) -> None:
    """Any 2xx counts as delivered."""


@router.post(
    "/endpoints",
    status_code=201,
    response_model=EndpointWithSecret,
    responses={**REJECTIONS, **rejections(413, 415)},
    openapi_extra=documented(EndpointRequest),
    summary="Create a webhook endpoint; its secret is shown only once",
)
async def create_endpoint(request: Request, api: Api, caller: Administrator) -> Response:
    document = await read_json(request, MAX_BODY_BYTES)
    asked = checked(EndpointRequest, document)
    check_endpoint(api, asked.url, asked.events)
    if len(await api.store.webhooks.endpoints(caller.tenant)) >= MOST_ENDPOINTS:
        raise RequestError(
            f"a tenant can have at most {MOST_ENDPOINTS} endpoints; delete one first", code="too_many_endpoints"
        )
    made, secret = await api.store.webhooks.add_endpoint(
        caller.tenant, asked.url, asked.events, asked.match, actor=caller.actor
    )
    return json_response({**endpoint_object(made), "secret": secret}, 201)


@router.get(
    "/endpoints",
    response_model=EndpointList,
    responses=REJECTIONS,
    summary="List your endpoints, without their secrets",
)
async def list_endpoints(api: Api, caller: Administrator) -> Response:
    rows = await api.store.webhooks.endpoints(caller.tenant)
    return json_response({"object": "list", "data": [endpoint_object(row) for row in rows]})


@router.get(
    "/endpoints/{endpoint_id}",
    response_model=EndpointObject,
    responses={**REJECTIONS, **rejections(404)},
    summary="Retrieve an endpoint",
)
async def get_endpoint(endpoint_id: EndpointId, api: Api, caller: Administrator) -> Response:
    return json_response(endpoint_object(await _endpoint(api, caller, endpoint_id)))


@router.delete(
    "/endpoints/{endpoint_id}",
    response_model=Deleted,
    responses={**REJECTIONS, **rejections(404)},
    summary="Delete an endpoint and drop its pending deliveries",
)
async def delete_endpoint(endpoint_id: EndpointId, api: Api, caller: Administrator) -> Response:
    if not await api.store.webhooks.remove_endpoint(caller.tenant, endpoint_id, actor=caller.actor):
        raise _no_endpoint()
    return json_response(Deleted(id=endpoint_id).model_dump())


@router.post(
    "/endpoints/{endpoint_id}/enable",
    response_model=EndpointObject,
    responses={**REJECTIONS, **rejections(404)},
    summary="Enable a disabled endpoint",
)
async def enable_endpoint(endpoint_id: EndpointId, api: Api, caller: Administrator) -> Response:
    if not await api.store.webhooks.enable_endpoint(caller.tenant, endpoint_id, actor=caller.actor):
        raise _no_endpoint()
    return json_response(endpoint_object(await _endpoint(api, caller, endpoint_id)))


@router.post(
    "/endpoints/{endpoint_id}/rotate",
    response_model=EndpointWithSecret,
    responses={**REJECTIONS, **rejections(404)},
    summary="Create a new secret, shown only once; for 24 hours, the old one signs as well",
)
async def rotate_endpoint(endpoint_id: EndpointId, api: Api, caller: Administrator) -> Response:
    row = await _endpoint(api, caller, endpoint_id)
    secret = await api.store.webhooks.rotate_secret(caller.tenant, endpoint_id, actor=caller.actor)
    return json_response({**endpoint_object(row), "secret": secret})


@router.get(
    "/secret",
    response_model=Secret,
    responses=REJECTIONS,
    summary="The secret that signs webhooks to your callback URLs",
)
async def get_secret(api: Api, caller: Administrator) -> Response:
    owner = callback_owner(caller.tenant)
    await api.store.audit.record_repeated(caller.actor, caller.tenant, SECRET_READ, owner)
    secrets = await api.store.webhooks.signing_secrets(owner)
    return json_response({"object": "webhook_secret", "secret": secrets[0]})


@router.post(
    "/secret/rotate",
    response_model=Secret,
    responses=REJECTIONS,
    summary="Create a new secret for your callback URLs; for 24 hours, the old one signs as well",
)
async def rotate_secret(api: Api, caller: Administrator) -> Response:
    secret = await api.store.webhooks.rotate_secret(caller.tenant, callback_owner(caller.tenant), actor=caller.actor)
    return json_response({"object": "webhook_secret", "secret": secret})


@router.get(
    "/deliveries",
    response_model=DeliveryList,
    responses=REJECTIONS,
    summary="List past and pending deliveries, newest first, with every attempt",
)
async def list_deliveries(
    api: Api,
    caller: Administrator,
    endpoint_id: Annotated[str | None, Query(pattern=ID)] = None,
    state: Literal["pending", "delivered", "dead"] | None = None,
    object_id: Annotated[str | None, Query(pattern=ID, description="Id of a job or batch.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    after: Annotated[
        str, Query(pattern=r"^[A-Za-z0-9_-]{0,100}$", description="The id of the last item already seen.")
    ] = "",
) -> Response:
    rows = await api.store.webhooks.deliveries(
        caller.tenant, endpoint_id=endpoint_id, state=state, object_id=object_id, limit=limit + 1, after=after
    )
    data = [delivery_object(row) for row in rows[:limit]]
    return json_response(page_of(data, has_more=len(rows) > limit))


@router.post(
    "/deliveries/{delivery_id}/replay",
    response_model=DeliveryObject,
    responses={**REJECTIONS, **rejections(404, 409)},
    summary="Send a delivery now, or again, with the same webhook-id",
)
async def replay_delivery(delivery_id: DeliveryId, api: Api, caller: Administrator) -> Response:
    replayed = await api.store.webhooks.replay(caller.tenant, delivery_id, actor=caller.actor)
    row = await api.store.webhooks.delivery(caller.tenant, delivery_id)
    if row is None:
        raise ApiError(404, "there is no such delivery", param="delivery_id", code="not_found")
    if not replayed:
        raise ApiError(409, "its endpoint is disabled or removed; enable the endpoint first", code="endpoint_disabled")
    return json_response(delivery_object(row))


def check_endpoint(api: Context, url: str, events: list[str]) -> None:
    """Raises RequestError."""
    try:
        check_receiver(url, api.settings.webhooks)
    except RefusedReceiver as error:
        raise RequestError(f"'url' {error}", "url") from None
    for event in events:
        if event not in (*EVENTS, *PATTERNS):
            raise RequestError(f"'events' must be among {', '.join((*PATTERNS, *EVENTS))}", "events")


async def _endpoint(api: Context, caller: Caller, endpoint_id: str) -> dict[str, Any]:
    row = await api.store.webhooks.endpoint(caller.tenant, endpoint_id)
    if row is None:
        raise _no_endpoint()
    return row


def _no_endpoint() -> ApiError:
    return ApiError(404, "there is no such endpoint", param="endpoint_id", code="not_found")
