"""Streams answers to callers: reads a page at a time, and spools it to disk until the caller has read it.

A slow caller costs a piece in memory and a page on disk, which are limited (`producer.api.files.delivery_room`). A
caller that hardly reads is disconnected (`producer.server.http_protocol`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import IO

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from understudy.models.disk_buffer import overflow_file
from understudy.producer.api.access.admission import is_left_to_answers
from understudy.producer.api.context import Context
from understudy.producer.api.errors import ApiError
from understudy.producer.api.files.delivery_room import DeliveryRoom, NoRoom

PIECE_BYTES = 64 * 1024
"""Bytes sent at a time. A smaller page is not worth a file."""

WAIT_S = 20.0
"""Seconds that a request waits for room before it is rejected. A response that has started waits without limit."""

RETRY_S = 5

Page = Callable[[], Awaitable[Iterable[bytes]]]
"""Reads the parts of a page."""


class Delivery:
    """The response to one request of a tenant."""

    def __init__(self, api: Context, tenant: str) -> None:
        self._api, self._tenant = api, tenant
        self._has_begun = False

    async def pieces(self, page: Page, size: int) -> AsyncGenerator[bytes, None]:
        """A page of about `size` bytes, kept in memory only while it is read from the ledger.

        Asking for the first piece raises ApiError when this tenant, or all tenants together, have too many unread
        responses.
        """
        async with self._room(self._api.untaken, size) as grow:
            read = await self._read(page, size, grow)
            if read is not None:
                async for piece in _all_of(read):
                    yield self._begun(piece)
                return
        async with self._room(self._api.untaken_in_memory, size):
            async with self._api.headroom.of(size):
                read = b"".join(await page())
            async for piece in _all_of(read):
                yield self._begun(piece)

    async def _read(self, page: Page, size: int, grow: Callable[[int], None]) -> IO[bytes] | bytes | None:
        """A small page, or the file that contains it. None: there is no room on the disk."""
        async with self._api.headroom.of(size):
            parts: list[bytes] = list(await page())
            length = sum(map(len, parts))
            if length <= PIECE_BYTES:
                return b"".join(parts)
            grow(max(0, length - size))
            if not is_left_to_answers(self._api.settings, length):
                return None
            try:
                return await asyncio.to_thread(overflow_file, self._api.settings.data, parts)
            except OSError:
                return None

    @asynccontextmanager
    async def _room(self, room: DeliveryRoom, size: int) -> AsyncIterator[Callable[[int], None]]:
        held = size

        def grow(more: int) -> None:
            nonlocal held
            held += more
            room.grow(self._tenant, more)

        try:
            await room.take(self._tenant, size, None if self._has_begun else WAIT_S)
        except NoRoom:
            raise self._rejection(room) from None
        try:
            yield grow
        finally:
            room.give(self._tenant, held)

    def _rejection(self, room: DeliveryRoom) -> ApiError:
        headers = {"Retry-After": str(RETRY_S)}
        if room is self._api.untaken_in_memory:
            message = "the server's disk is nearly full, and other responses have not been read yet; try again later"
            return ApiError(503, message, code="storage_full", headers=headers)
        message = f"tenant '{self._tenant}' has too many unread responses; read them or close their connections"
        return ApiError(429, message, code="answers_not_taken", headers=headers)

    def _begun(self, piece: bytes) -> bytes:
        self._has_begun = True
        return piece


async def _all_of(read: IO[bytes] | bytes) -> AsyncIterator[bytes]:
    if isinstance(read, bytes):
        for start in range(0, len(read), PIECE_BYTES):
            yield read[start : start + PIECE_BYTES]
        return
    with read:
        read.seek(0)
        while piece := await asyncio.to_thread(read.read, PIECE_BYTES):
            yield piece


class _Streamed(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Release the room at once when the caller disconnects."""
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)


async def streamed(chunks: AsyncGenerator[bytes, None], headers: Mapping[str, str], media_type: str) -> Response:
    """A streaming response whose first piece is ready, so that early errors still get their own status."""
    first = await anext(chunks, b"")
    return _Streamed(_resumed(first, chunks), headers=headers, media_type=media_type)


async def _resumed(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk
