"""Who asks, and what that caller may do.

Once a key exists, everybody needs one. Until then callers on this machine are served, and nobody else; what could make
an outsider look local (a proxy, another name for this address, a web page in a browser here) is refused.
"""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from models.api_keys import Scope, parts_of
from models.tenants import DEFAULT_TENANT
from producer.addresses import is_loopback
from producer.api.context import Api, Context
from producer.api.errors import ApiError
from producer.api.refused_keys import UNKNOWN

__all__ = ["DEFAULT_TENANT", "Administrator", "Caller", "MetricsReader", "Reader", "Scope", "Submitter"]

LOOPBACK = "loopback"
"""What audit rows call a caller without a key."""

FORWARDED = ("forwarded", "via", "x-real-ip")
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
    """On this machine nobody needs a key for figures; from elsewhere any key that may read will do."""
    if presented is None and why_not_local(request, api.settings.api.public_url) is None:
        return NOBODY_BUT_LOCAL
    return await _caller(request, api, presented, Scope.READ)


Reader = Annotated[Caller, Depends(reader)]
Submitter = Annotated[Caller, Depends(submitter)]
Administrator = Annotated[Caller, Depends(administrator)]
MetricsReader = Annotated[Caller, Depends(metrics_reader)]


async def _caller(
    request: Request, api: Context, presented: HTTPAuthorizationCredentials | None, needed: Scope
) -> Caller:
    if not await api.keyring.has_keys(api.store):
        why = why_not_local(request, api.settings.api.public_url)
        if why is None:
            _let_in(request)
            return NOBODY_BUT_LOCAL
        raise ApiError(401, f"no API key exists yet, and {why}; {MAKE_A_KEY}", code="no_api_keys", headers=BEARER)
    caller = await _holder(request, api, presented)
    _let_in(request)
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


def _let_in(request: Request) -> None:
    """The caller's connection is one that is known (`producer.crowd`); in tests there is none."""
    be_known = getattr(request.state, "be_known", None)
    if be_known is not None:
        be_known()


def _refused(why: str) -> ApiError:
    return ApiError(401, why, code="invalid_api_key", headers=BEARER)


def why_not_local(request: Request, public_url: str | None = None) -> str | None:
    """None for a caller on this machine; else what speaks against it."""
    if any(name in FORWARDED or name.startswith("x-forwarded-") for name in request.headers):
        return "this request came through a proxy, which could bring it from anywhere"
    if request.client is None or not is_loopback(request.client.host):
        return "only callers on the server's own machine are served without one"
    host = _host_of(f"//{request.headers.get('host', '')}")
    if not is_loopback(host):
        return f"only the names localhost, 127.0.0.1 and [::1] are served without one, not '{host[:80]}'"
    origin = request.headers.get("origin")
    if origin is not None and origin not in (f"{request.url.scheme}://{request.headers['host']}", public_url):
        return "this request was made by a web page of another origin"
    return None


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
