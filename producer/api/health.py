"""Liveness, readiness and Prometheus metrics over HTTP. Stores are read at a bounded rate, since anyone may ask."""

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import TypedDict

from understudy.producer.api.access.auth import MetricsReader
from understudy.producer.api.context import Api
from understudy.producer.api.errors import TEXT, json_response, rejections

router = APIRouter(tags=["health"])


class Alive(TypedDict):
    status: Literal["ok"]


class Ready(TypedDict):
    """`database`, `redis`: "ok", or what is wrong."""

    ready: bool
    database: str
    redis: str


@router.get("/healthz", summary="This process is alive")
async def healthz() -> Alive:
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="The stores are reachable and the schema is current",
    response_model=Ready,
    responses={503: {"description": "Not ready", "model": Ready}},
)
async def readyz(api: Api) -> Response:
    checks = await api.readiness.checks(api.store, api.redis)
    ready = all(word == "ok" for word in checks.values())
    return json_response({"ready": ready, **checks}, 200 if ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: TEXT}}, **rejections(401, 403, 503)},
)
async def metrics(api: Api, _caller: MetricsReader) -> Response:
    await api.metrics.ledger.read(api.store)
    await api.metrics.limits.read(api.redis, api.settings)
    return Response(generate_latest(api.metrics.registry), media_type=CONTENT_TYPE_LATEST)
