"""uvicorn's HTTP protocol, with limits on everything before a request is authenticated.

    too long      a head or trailers beyond HEAD_BYTES or HEADERS: 431
    too slow      a head that is incomplete after HEAD_S: 408; a connection that sends nothing: closed
    too many      connections: 503 (`producer.server.connection_limit`); pipelined requests: MOST_PIPELINED
    not read      a response of which hardly anything is read for STALLED_S: the connection is aborted

Bodies are limited where they are read (`producer.api.bodies`). None of this is logged, because anyone can cause it.
"""

import asyncio
import select
from functools import partial
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from understudy.producer.server.connection_limit import HELD_BYTES, ConnectionLimit
from understudy.producer.server.http_rejections import (
    HEAD_BYTES,
    HEAD_S,
    HEADERS,
    MOST_PIPELINED,
    NO_HTTP,
    TOO_EAGER,
    TOO_LONG,
    TOO_MANY,
    TOO_SLOW,
    Rejection,
    answer,
    no_room,
)

LATE_S = 0.5
"""Extra seconds so that data that arrived while this process was busy is read before a deadline counts."""

STALLED_S = 30.0
LEAST_READ_BYTES = 16 * 1024
"""Minimum bytes of a response that a client must read in STALLED_S."""

LINGER_S, LINGER_BYTES = 2.0, 1024 * 1024
"""Limits for discarding input after a rejection: a client that is cut off while sending may never read the response."""

PROBES = (b"/healthz", b"/readyz")
"""Served even when all slots are taken, so that a supervisor does not take this process for dead."""


def bounded(crowd: ConnectionLimit) -> Any:
    """For uvicorn's `http`: the protocol factory of one server."""
    return partial(BoundedProtocol, crowd)


class BoundedProtocol(HttpToolsProtocol):
    def __init__(self, crowd: ConnectionLimit, **given: Any) -> None:
        super().__init__(**given)
        self.since = 0.0
        self._crowd = crowd
        self._known = False  # a key was verified on this connection
        self._head = 0  # bytes of the incomplete head
        self._in_body = False  # from the end of the head to the end of the message
        self._body_came = self._ended = False  # in the piece being parsed
        self._beside_body = 0  # bytes of trailers or chunk framing since the last byte of a body
        self._why: Rejection = NO_HTTP
        self._deaf, self._thrown_away = False, 0  # input is discarded
        self._last_words: bytes | None = None  # sent when the earlier requests have been answered
        self._running: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._unread, self._was_read = 0, False

    # events from the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._crowd.enter(self)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._reserve(0)
        for timer in (self._deadline, self._reader):
            if timer is not None:
                timer.cancel()
        self.pipeline.clear()
        if self._running is not None and self._running is not self.cycle:
            _tell_that_it_is_gone(self._running)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._deaf:
            self._throw_away(len(data))
        while data and not self._deaf:
            room = len(data) if self._in_body else HEAD_BYTES - self._head
            piece, data = data[:room], data[room:]
            was_in_body, self._body_came, self._ended = self._in_body, False, False
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                self._stay_with_http()
            except httptools.HttpParserError:
                self._reject(self._why)
            else:
                self._count(len(piece), was_in_body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_read = True

    # events from the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._why = NO_HTTP
        self.scope["state"]["be_known"] = self._be_known

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are dropped: our API does not use them."""
        if self._in_body:
            return
        if len(self.headers) >= HEADERS:
            self._why = TOO_LONG
            raise ValueError(TOO_LONG)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._why = TOO_EAGER
            raise ValueError(TOO_EAGER)
        room = self._crowd.asks(self, self._known) or self.url in PROBES
        self.app = self.config.loaded_app if room else no_room
        super().on_headers_complete()
        self._in_body, self._beside_body = True, 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._ended = False, True
        super().on_message_complete()

    # events from the application

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()
        elif self._running is not None and self._running.response_complete:  # otherwise the next one has started
            self._crowd.waits(self)
            if self._last_words is not None:
                self._say(self._last_words)
            else:
                self._wait_for_head()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def _be_known(self, tenant: str | None) -> bool:
        """The caller is authenticated for this tenant (None: no key required). False: the tenant has no slots left."""
        self._known = True
        return self._crowd.is_known(self, tenant)

    # too long

    def _count(self, size: int, was_in_body: bool) -> None:
        """Count a parsed piece. If a message ended in it, the bytes after it are not counted: they are less than one
        read."""
        if self._in_body:
            self._reserve(0)
            self._beside_body = 0 if self._body_came or not was_in_body else self._beside_body + size
            if self._beside_body > HEAD_BYTES:
                self._reject(TOO_LONG)
            return
        self._reserve(0 if self._ended else self._head + size)
        if self._head >= HEAD_BYTES:
            self._reject(TOO_LONG)
        elif self._crowd.held_bytes > HELD_BYTES:
            self._reject(TOO_MANY)

    def _reserve(self, size: int) -> None:
        self._crowd.held_bytes += size - self._head
        self._head = size

    # too slow

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._late)

    def _late(self) -> None:
        self._deadline = self.loop.call_later(LATE_S, self._give_up)

    def _give_up(self) -> None:
        if self._head:
            self._reject(TOO_SLOW)
        else:
            self._deaf = True
            self._hang_up()

    def _watch_reader(self) -> None:
        """Abort the connection when the client stops reading the response."""
        if self._reader is None:
            self._unread, self._was_read = self.transport.get_write_buffer_size(), False
            self._reader = self.loop.call_later(STALLED_S, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._reader = None
        unread = self.transport.get_write_buffer_size()
        if self._was_read or self._unread - unread >= LEAST_READ_BYTES:
            if self.flow.write_paused or self.transport.is_closing():
                self._watch_reader()
        elif unread:
            self.transport.abort()

    # rejecting

    def _stay_with_http(self) -> None:
        """The client requests a protocol upgrade: answer over HTTP, then close the connection."""
        self._deaf = True
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self._hang_up()

    def _reject(self, why: Rejection) -> None:
        """Stop reading, answer earlier requests, send the error and close."""
        self._deaf = True
        self._reserve(0)
        words = answer(why)
        if self._in_body:
            if self.pipeline:
                self.pipeline.popleft()
            else:  # the request being answered is itself rejected
                words = b"" if self.cycle.response_started else words
                _tell_that_it_is_gone(self.cycle)
                self._running = None
        if self._running is None or self._running.response_complete:
            self._say(words)
        else:
            self._last_words = words

    def _say(self, words: bytes) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(words)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._crowd.waits(self)
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(LINGER_S, self._hang_up)

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._thrown_away > LINGER_BYTES and self._last_words is None:
            self._hang_up()

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._watch_reader()

    def is_silent(self) -> bool:
        """Whether the socket has no unread data."""
        poll, number = select.poll(), self.transport.get_extra_info("socket").fileno()
        if number < 0:
            return True
        poll.register(number, select.POLLIN)
        return not poll.poll(0)

    def send_away(self) -> None:
        """Abort the connection to free its slot."""
        self._deaf = True
        self.transport.abort()


def _tell_that_it_is_gone(cycle: RequestResponseCycle) -> None:
    """Tell the application that the client has disconnected."""
    cycle.disconnected = True
    cycle.message_event.set()
