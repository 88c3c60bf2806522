"""The current state of the providers across the fleet, for administrators."""

import orjson
from fastapi import APIRouter, Response

from understudy.models.objects.provider import ProviderList, ProviderObject
from understudy.models.routing.allowlist import Allowed
from understudy.producer.api.access.auth import Administrator
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON, refusals
from understudy.producer.status.provider_state import live_of, provider_documents, read_ledger

router = APIRouter(prefix="/v1", tags=["administration"])


@router.get(
    "/providers",
    response_model=ProviderList,
    responses=refusals(401, 403, 503),
    summary="Limits, usage and cooldowns of each provider, key and model",
)
async def providers(api: Api, caller: Administrator) -> Response:
    """Values cover the whole installation, since tenants share its providers. Lists only what your tenant may use."""
    ledger = await read_ledger(api.store)
    live = await live_of(api.redis, api.settings, ledger)
    allowed = Allowed(api.settings, (await api.rules.of(api.store, caller.tenant)).allow)
    documents = provider_documents(api.settings, ledger, live)
    data = [_for_tenants(each) for each in documents if allowed.was_accepted(f"{each['provider']}/{each['model']}")]
    document = {"object": "list", "live": live is not None, "data": data}
    return Response(orjson.dumps(document), media_type=JSON)


def _for_tenants(document: ProviderObject) -> ProviderObject:
    """Without fields that may contain an internal address or quote another tenant's request."""
    shown = document.copy()
    shown.pop("base_url", None)
    shown["disabled"] = [row.copy() for row in document["disabled"]]
    for row in shown["disabled"]:
        row.pop("reason", None)
    return shown
