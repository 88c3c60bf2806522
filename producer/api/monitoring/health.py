"""Liveness, readiness and Prometheus metrics."""

import orjson
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from understudy.producer.api.access.auth import MetricsReader
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON, refusals

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="This process is alive")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="The stores are reachable and the schema is current")
async def readyz(api: Api) -> Response:
    checks = await api.readiness.checks(api.store, api.redis)
    ready = all(word == "ok" for word in checks.values())
    return Response(orjson.dumps({"ready": ready, **checks}), 200 if ready else 503, media_type=JSON)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}, **refusals(401, 403, 503)},
)
async def metrics(api: Api, _caller: MetricsReader) -> Response:
    await api.metrics.ledger.read(api.store)
    await api.metrics.limits.read(api.redis, api.settings)
    return Response(generate_latest(api.metrics.registry), media_type=CONTENT_TYPE_LATEST)
