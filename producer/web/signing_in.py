"""Signing in with an API key, and out."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials
from redis.exceptions import RedisError

from understudy.models.api_keys import Scope
from understudy.producer.api.access.auth import holder
from understudy.producer.api.access.locality import OWN_PAGES
from understudy.producer.api.context import Api
from understudy.producer.api.errors import ApiError
from understudy.producer.web.access import Submitting, read_form
from understudy.producer.web.rendering import PageRoute, render
from understudy.producer.web.sessions import begin_session, clear_cookie, end_session, set_cookie, token_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/sign-in")
async def form(request: Request) -> Response:
    return render(request, "sign_in", viewer=None, message=None)


@router.post("/sign-in")
async def sign_in(request: Request, api: Api) -> Response:
    """A new session, in place of the browser's former one. Refused for pages of other sites, which could otherwise sign
    a person in as someone else."""
    if request.headers.get("sec-fetch-site", "none") not in OWN_PAGES:
        raise ApiError(403, "this sign-in came from a page of another site; open the page of this server yourself")
    key = (await read_form(request)).get("key", "").strip()
    try:
        caller = await holder(request, api, HTTPAuthorizationCredentials(scheme="Bearer", credentials=key))
    except ApiError as error:
        return render(request, "sign_in", error.status, viewer=None, message=str(error))
    if Scope.READ not in caller.scopes or caller.key_id is None:
        return render(request, "sign_in", 403, viewer=None, message="this key may not read")
    try:
        await end_session(api.redis, token_of(request))
        token = await begin_session(api.redis, caller.key_id)
    except (RedisError, OSError):
        raise ApiError(503, "Redis is unreachable, so no one can sign in; try again soon") from None
    await api.store.audit.record(caller.actor, caller.tenant, "session.begin", caller.key_id)
    answer = RedirectResponse("/", 303)
    set_cookie(answer, token, secure=(api.settings.api.public_url or "").startswith("https:"))
    return answer


@router.post("/sign-out")
async def sign_out(api: Api, by: Submitting) -> Response:
    try:
        await end_session(api.redis, by.session)
    except (RedisError, OSError):
        raise ApiError(503, "Redis is unreachable, so the session cannot be ended; try again soon") from None
    answer = RedirectResponse("/sign-in", 303)
    clear_cookie(answer)
    return answer
