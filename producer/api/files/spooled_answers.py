"""Answers on their way to callers: read a page at a time, and kept on disk until who asked has taken them.

A caller that reads slowly, or not at all, holds a piece in memory, or a small page.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

from fastapi import Response
from fastapi.responses import StreamingResponse

from understudy.models.overflow import overflow_file
from understudy.producer.api.context import Context

PIECE_BYTES = 256 * 1024
HELD_BYTES = 1024 * 1024
"""A page of so much is not worth a file."""

Page = Callable[[], Awaitable[Iterable[bytes]]]
"""Reads the parts of a page."""


async def pieces(api: Context, page: Page, size: int) -> AsyncIterator[bytes]:
    """A page of about `size` bytes, which is in memory no longer than it takes to read it."""
    async with api.headroom.of(size):
        parts: list[bytes] = list(await page())
        if sum(map(len, parts)) > HELD_BYTES:
            try:
                file = await asyncio.to_thread(overflow_file, api.settings.data, parts)
            except OSError:  # the disk is full: rather too much memory than no answer
                file = None
            parts = parts if file is None else []
        else:
            file = None
    if file is None:
        yield b"".join(parts)
        return
    del parts
    with file:
        file.seek(0)
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


async def streamed(chunks: AsyncIterator[bytes], headers: Mapping[str, str], media_type: str) -> Response:
    """What can go wrong at once goes wrong before there is a status."""
    first = await anext(chunks, b"")
    return StreamingResponse(_resumed(first, chunks), headers=headers, media_type=media_type)


async def _resumed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
