"""Who looks at a page: the holder of the API key that signed in, or a person on this machine while no key exists."""

from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request
from redis.exceptions import RedisError

from understudy.models.api_keys import Scope
from understudy.producer.api.access.auth import Caller, admitted, reader
from understudy.producer.api.bodies import read_bytes
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError
from understudy.producer.web.sessions import form_token, key_of_session, token_of

FORM_BYTES = 4_096


class SignInNeeded(Exception):
    """No one is signed in, and a key is required."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """`session` is empty for a person on this machine while no key exists."""

    caller: Caller
    session: str = ""

    @property
    def form_token(self) -> str:
        return form_token(self.session)

    def may(self, scope: Scope) -> bool:
        return scope in self.caller.scopes


async def viewer(request: Request, api: Api) -> Viewer:
    """Raises SignInNeeded, ApiError, StoreError."""
    if not await api.keyring.has_keys(api.store):
        return Viewer(await reader(request, api, None))
    token = token_of(request)
    key_id = await _signed_in(api, token)
    record = await api.store.api_keys.find(key_id) if key_id else None
    if record is None or record.state(api.clock()) != "active":
        raise SignInNeeded
    caller = Caller(record.tenant, record.allows(), record.id)
    return Viewer(admitted(request, caller, Scope.READ), token)


Viewing = Annotated[Viewer, Depends(viewer)]


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a short form; of a repeated field the last value. Raises ApiError."""
    raw = await read_bytes(request, FORM_BYTES)
    return {name: values[-1] for name, values in parse_qs(raw.decode("utf-8", "replace")).items()}


async def submitting(request: Request, by: Viewing) -> Viewer:
    """The viewer of a submitted form. Raises ApiError unless the form is ours."""
    form = await read_form(request)
    if not compare_digest(form.get("form_token", "").encode(), by.form_token.encode()):
        raise ApiError(403, "this form is out of date; reload the page and try again", code="stale_form")
    return by


Submitting = Annotated[Viewer, Depends(submitting)]


async def acting(by: Submitting) -> Viewer:
    """As `submitting`, for forms that change work. Raises ApiError unless the key may do that."""
    if not by.may(Scope.SUBMIT):
        raise ApiError(403, f"this requires the scope 'submit'; key {by.caller.key_id} lacks it", code="missing_scope")
    return by


Acting = Annotated[Viewer, Depends(acting)]


async def _signed_in(api: Context, token: str) -> str | None:
    try:
        return await key_of_session(api.redis, token)
    except (RedisError, OSError):
        raise ApiError(503, "Redis is unreachable, so sessions cannot be checked; try again soon") from None
