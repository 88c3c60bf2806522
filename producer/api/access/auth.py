"""Who asks, and what that caller may do.

Once a key exists, everybody needs one. Until then callers on this machine are served, and nobody else
(`producer.api.access.locality`); and not even those where the server is there for others.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from understudy.models.api_keys import Scope, parts_of
from understudy.models.config.settings import ApiSettings
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.api.access.locality import why_not_local
from understudy.producer.api.access.refused_keys import UNKNOWN
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError
from understudy.producer.server.addresses import is_loopback

__all__ = ["DEFAULT_TENANT", "Administrator", "Caller", "MetricsReader", "Reader", "Scope", "Submitter"]

LOOPBACK = "loopback"
"""What audit rows call a caller without a key."""

BEARER = {"WWW-Authenticate": "Bearer"}
MAKE_A_KEY = "make a key with `understudy keys create` and send it as 'Authorization: Bearer us_…'"


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id` None: nobody has made a key yet, and the caller is on this machine."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None

    @property
    def actor(self) -> str:
        """As audit rows name it."""
        return self.key_id or LOOPBACK


CROWDED_RETRY_S = 5

NOBODY_BUT_LOCAL = Caller(DEFAULT_TENANT, frozenset(Scope))

Presented = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(
        HTTPBearer(
            auto_error=False,
            scheme_name="ApiKey",
            description="A key from `understudy keys create`. Before any is made, the server's machine needs none.",
        )
    ),
]


async def reader(request: Request, api: Api, presented: Presented) -> Caller:
    return await _caller(request, api, presented, Scope.READ)


async def submitter(request: Request, api: Api, presented: Presented) -> Caller:
    return await _caller(request, api, presented, Scope.SUBMIT)


async def administrator(request: Request, api: Api, presented: Presented) -> Caller:
    return await _caller(request, api, presented, Scope.ADMIN)


async def metrics_reader(request: Request, api: Api, presented: Presented) -> Caller:
    """On this machine nobody needs a key for figures. From elsewhere a key of the operator's own tenant is needed:
    they are those of all tenants."""
    if presented is None and api.settings.api.public_url is None and why_not_local(request) is None:
        return NOBODY_BUT_LOCAL
    caller = await _caller(request, api, presented, Scope.READ)
    if caller.tenant != DEFAULT_TENANT:
        why = f"these are figures of all tenants, and need a key of tenant '{DEFAULT_TENANT}'"
        raise ApiError(403, f"{why}; {caller.key_id} is one of '{caller.tenant}'", code="not_for_tenants")
    return caller


Reader = Annotated[Caller, Depends(reader)]
Submitter = Annotated[Caller, Depends(submitter)]
Administrator = Annotated[Caller, Depends(administrator)]
MetricsReader = Annotated[Caller, Depends(metrics_reader)]


async def _caller(
    request: Request, api: Context, presented: HTTPAuthorizationCredentials | None, needed: Scope
) -> Caller:
    if not await api.keyring.has_keys(api.store):
        why = _why_for_others(api.settings.api) or why_not_local(request)
        if why is None:
            _let_in(request, NOBODY_BUT_LOCAL)
            return NOBODY_BUT_LOCAL
        raise ApiError(401, f"no API key exists yet, and {why}; {MAKE_A_KEY}", code="no_api_keys", headers=BEARER)
    caller = await _holder(request, api, presented)
    _let_in(request, caller)
    if needed not in caller.scopes:
        held = ", ".join(sorted(caller.scopes))
        raise ApiError(403, f"this needs the scope '{needed}'; key {caller.key_id} has {held}", code="missing_scope")
    return caller


async def _holder(request: Request, api: Context, presented: HTTPAuthorizationCredentials | None) -> Caller:
    """Whoever holds the key that was presented. What was presented is never repeated."""
    if presented is None:
        raise _refused("an API key is needed; send it as 'Authorization: Bearer us_…'")
    record = await api.keyring.find(api.store, presented.credentials)
    address = request.client.host if request.client else "an unknown address"
    if record is None:
        claimed = parts_of(presented.credentials)
        api.refused_keys.note(address, key_id=claimed[0] if claimed else UNKNOWN)
        raise _refused("the API key is not known here; check that it was copied whole")
    state = record.state(api.clock())
    if state != "active":
        api.refused_keys.note(address, record.tenant, record.id)
        raise _refused(f"API key {record.id} is {state}; ask for a new one")
    return Caller(record.tenant, record.allows(), record.id)


def _why_for_others(api: ApiSettings) -> str | None:
    """What says that others than callers on this machine are to be served, and that a key is needed for that."""
    if api.public_url is not None:
        return "a server with a public_url serves nobody without one"
    if not is_loopback(api.host):
        return "a server that listens on more than its own machine serves nobody without one"
    return None


def _let_in(request: Request, caller: Caller) -> None:
    """The log may name the caller's tenant, and its connection counts as known (`producer.server.connection_limit`).

    Raises ApiError 429 when its tenant has too many requests under way. Tests without a server have no connection.
    """
    request.state.tenant = caller.tenant
    be_known = getattr(request.state, "be_known", None)
    if be_known is None or be_known(caller.tenant if caller.key_id else None):
        return
    message = (
        f"too many requests of tenant '{caller.tenant}' are under way in this process; wait until some are answered"
    )
    raise ApiError(429, message, code="too_many_requests_under_way", headers={"Retry-After": str(CROWDED_RETRY_S)})


def _refused(why: str) -> ApiError:
    return ApiError(401, why, code="invalid_api_key", headers=BEARER)
