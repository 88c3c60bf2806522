"""Whether this process is alive, and whether it can do its work."""

import orjson
from fastapi import APIRouter, Response
from redis.exceptions import RedisError

from models.store import StoreError
from producer.api.context import Api
from producer.api.errors import JSON

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="This process is alive")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="The stores are reachable and the schema is current")
async def readyz(api: Api) -> Response:
    checks = {"database": await _database(api), "redis": await _redis(api)}
    ready = all(word == "ok" for word in checks.values())
    return Response(orjson.dumps({"ready": ready, **checks}), 200 if ready else 503, media_type=JSON)


async def _database(api: Api) -> str:
    try:
        return (
            "ok" if await api.store.schema_is_current() else "its schema is not this version's; run understudy migrate"
        )
    except StoreError as error:
        return str(error)


async def _redis(api: Api) -> str:
    try:
        await api.redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "Redis cannot be reached; check REDIS_URL and that it is running"
    return "ok"
