"""The providers as the fleet sees them now, for administrators."""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Response

from understudy.models.failure import FailureClass, Scope
from understudy.models.limits.state import Source
from understudy.models.routing.allowlist import Allowed
from understudy.producer.api.access.auth import Administrator
from understudy.producer.api.batches.objects import Documented
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON, refusals
from understudy.producer.status.provider_state import live_of, provider_documents, read_ledger

router = APIRouter(prefix="/v1", tags=["administration"])

FOR_THE_COMMAND_LINE = ("live", "base_url")
"""Where a provider listens may be an address of the inner network."""


class LimitObject(Documented):
    limit: float | None
    """What holds now; null: nothing limits yet."""
    source: Source
    until: float | None
    """It is lower than usual until then, because others use the account as well."""
    configured: int | None


class DayObject(Documented):
    """What is used of a UTC day's limit."""

    limit: int
    used: int | None
    """Over all workers, calls under way with what they are expected to use; null while Redis does not answer."""
    until: float | None
    """When the day ends."""


class InFlight(Documented):
    limit: int | None
    source: Source
    """`learned`: a slow start, which ends as calls are answered."""
    configured: int | None
    now: int | None
    """Over all workers; null while Redis does not answer."""


class Calls(Documented):
    answered: int
    refused: int
    """By a rate limit or an overload."""
    failed: int


class CooldownObject(Documented):
    scope: Scope
    """`model`: this account with this model; `account`: all of its models; `provider`: this model for all keys."""
    until: float
    in_a_row: int
    """Cooldowns without an answer between."""
    since: float
    """When the first of them began."""
    probing: bool
    """From its end on single calls try it until one is answered."""
    next_start: float
    """When the next of them may start."""
    reason: str


class SetAsideObject(Documented):
    model: str | None
    failure: FailureClass
    since: float
    probe_at: float | None
    """When one job may try it again."""


class ProviderObject(Documented):
    """A key of a provider with one model. Times are unix seconds."""

    object: Literal["provider"]
    provider: str
    key: str | None
    """Its name; null: the provider needs a key and has none."""
    account: str | None
    """Keys of one account share its limits."""
    model: str | None
    protocol: str
    state: Literal["ready", "full", "cooling", "resting", "probing", "set_aside", "no_key", "unknown"]
    requests_per_minute: LimitObject
    tokens_per_minute: LimitObject
    requests_per_day: DayObject | None
    """null: a day has no limit."""
    tokens_per_day: DayObject | None
    in_flight: InFlight
    next_start: float | None
    """When the next call may start, if none could now."""
    last_minute: Calls
    cooldowns: list[CooldownObject]
    set_aside: list[SetAsideObject]


class ProviderList(Documented):
    object: Literal["list"]
    live: bool
    """False: Redis does not answer, so what only it knows is missing."""
    data: list[ProviderObject]


@router.get(
    "/providers",
    response_model=ProviderList,
    responses=refusals(401, 403, 503),
    summary="Limits, use and cooldowns of each provider, key and model",
)
async def providers(api: Api, caller: Administrator) -> Response:
    """Of the whole installation, as all tenants share its providers; of what your tenant may use, where limited."""
    ledger = await read_ledger(api.store)
    live = await live_of(api.redis, api.settings, ledger)
    allowed = Allowed(api.settings, (await api.rules.of(api.store, caller.tenant)).allow)
    documents = provider_documents(api.settings, ledger, live)
    data = [_object(each) for each in documents if allowed.was_accepted(f"{each['provider']}/{each['model']}")]
    document = {"object": "list", "live": live is not None, "data": data}
    return Response(orjson.dumps(document), media_type=JSON)


def _object(document: dict[str, Any]) -> dict[str, Any]:
    """A provider's own words about a key stay on the command line: they may quote what a tenant sent."""
    shown = {name: value for name, value in document.items() if name not in FOR_THE_COMMAND_LINE}
    aside = [{name: value for name, value in row.items() if name != "reason"} for row in document["set_aside"]]
    return {"object": "provider", **shown, "set_aside": aside}
