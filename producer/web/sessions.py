"""Sign-in sessions of the web page.

A session is a random token in a cookie. Redis stores its hash with the id of the API key that signed in, so a copy of
Redis lets no one in, a revoked key ends all of its sessions, and a wiped Redis only means to sign in again.
"""

import hashlib
import secrets

from fastapi import Request, Response
from redis.asyncio import Redis

from understudy.models.queue import keys

COOKIE = "understudy_session"
SESSION_S = 12 * 3600
"""Seconds until a session ends."""

TOKEN_BYTES = 32
TOKEN_CHARS = 64
"""More than any token of ours has."""


async def begin_session(redis: Redis, key_id: str) -> str:
    """A new session for the holder of this API key. Returns its token. Raises RedisError."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await redis.set(_name(token), key_id, ex=SESSION_S)
    return token


async def key_of_session(redis: Redis, token: str) -> str | None:
    """The id of the API key that signed in; None if there is no such session (any more). Raises RedisError."""
    found = await redis.get(_name(token)) if 0 < len(token) <= TOKEN_CHARS else None
    return found.decode() if isinstance(found, bytes) else None


async def end_session(redis: Redis, token: str) -> None:
    """Raises RedisError."""
    await redis.delete(_name(token))


def token_of(request: Request) -> str:
    """The session token that a browser sent; empty if there is none."""
    return request.cookies.get(COOKIE, "")


def form_token(token: str) -> str:
    """What a form of this session must send back, which pages of other sites cannot know."""
    return hashlib.sha256(b"form:" + token.encode()).hexdigest()


def set_cookie(response: Response, token: str, *, secure: bool) -> None:
    response.set_cookie(COOKIE, token, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)


def clear_cookie(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _name(token: str) -> str:
    return keys.session(hashlib.sha256(token.encode()).hexdigest())
