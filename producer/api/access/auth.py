"""Authentication and authorization of callers.

Once a key exists, every caller needs one. Until then, only callers on this machine are served
(`producer.api.access.locality`), and not even those if the server is configured for other machines.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from understudy.models.api_keys import Scope, parts_of
from understudy.models.config.settings import ApiSettings
from understudy.models.tenants import DEFAULT_TENANT
from understudy.models.this_machine import is_loopback
from understudy.producer.api.access.keyring import UNKNOWN
from understudy.producer.api.access.locality import why_not_local
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError

__all__ = ["DEFAULT_TENANT", "Administrator", "Caller", "MetricsReader", "Reader", "Scope", "Submitter"]

LOOPBACK = "loopback"
"""The actor of a caller without a key in the audit log."""

BEARER = {"WWW-Authenticate": "Bearer"}
MAKE_A_KEY = "create a key with `understudy keys create` and send it as 'Authorization: Bearer us_…'"


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id` None: no key exists yet, and the caller is on this machine."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None

    @property
    def actor(self) -> str:
        """As named in the audit log."""
        return self.key_id or LOOPBACK


CROWDED_RETRY_S = 5

NOBODY_BUT_LOCAL = Caller(DEFAULT_TENANT, frozenset(Scope))

Presented = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(
        HTTPBearer(
            auto_error=False,
            scheme_name="ApiKey",
            description="A key from `understudy keys create`. Until one exists, local callers need none.",
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
    """Metrics are open on loopback; elsewhere they require a key of the operator's tenant, because they cover all
    tenants."""
    if presented is None and api.settings.api.public_url is None and why_not_local(request) is None:
        return NOBODY_BUT_LOCAL
    caller = await _caller(request, api, presented, Scope.READ)
    if caller.tenant != DEFAULT_TENANT:
        why = f"metrics cover all tenants and require a key of tenant '{DEFAULT_TENANT}'"
        raise ApiError(403, f"{why}; {caller.key_id} belongs to '{caller.tenant}'", code="not_for_tenants")
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
    return admitted(request, await holder(request, api, presented), needed)


def admitted(request: Request, caller: Caller, needed: Scope) -> Caller:
    """The caller, who is served now. Raises ApiError without this scope, or when too many requests are in progress."""
    _let_in(request, caller)
    if needed not in caller.scopes:
        held = ", ".join(sorted(caller.scopes))
        raise ApiError(403, f"this requires the scope '{needed}'; key {caller.key_id} has {held}", code="missing_scope")
    return caller


async def holder(request: Request, api: Context, presented: HTTPAuthorizationCredentials | None) -> Caller:
    """The caller with the presented key, which is never echoed. Raises ApiError."""
    if presented is None:
        raise _rejected("an API key is required; send it as 'Authorization: Bearer us_…'")
    record = await api.keyring.find(api.store, presented.credentials)
    address = request.client.host if request.client else "an unknown address"
    if record is None:
        claimed = parts_of(presented.credentials)
        api.rejected_keys.note(address, key_id=claimed[0] if claimed else UNKNOWN)
        raise _rejected("unknown API key; check that it was copied completely")
    state = record.state(api.clock())
    if state != "active":
        api.rejected_keys.note(address, record.tenant, record.id)
        raise _rejected(f"API key {record.id} is {state}; ask for a new one")
    return Caller(record.tenant, record.allows(), record.id)


def _why_for_others(api: ApiSettings) -> str | None:
    """Why the server is meant for callers on other machines, and therefore requires a key. None: it is not."""
    if api.public_url is not None:
        return "a server with a public_url requires one"
    if not is_loopback(api.host):
        return "a server that listens beyond loopback requires one"
    return None


def _let_in(request: Request, caller: Caller) -> None:
    """Record the caller's tenant for the log and for the connection limit (`producer.server.connection_limit`).

    Raises ApiError 429 when the tenant has too many requests in progress. Tests without a server have no connection.
    """
    request.state.tenant = caller.tenant
    be_known = getattr(request.state, "be_known", None)
    if be_known is None or be_known(caller.tenant if caller.key_id else None):
        return
    message = f"too many requests of tenant '{caller.tenant}' are in progress in this process; wait until some finish"
    raise ApiError(429, message, code="too_many_requests_under_way", headers={"Retry-After": str(CROWDED_RETRY_S)})


def _rejected(why: str) -> ApiError:
    return ApiError(401, why, code="invalid_api_key", headers=BEARER)
