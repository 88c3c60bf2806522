"""The listener of the HTTP API."""

import socket

from understudy.producer.server.serving import _listen


def test_small_answers_are_not_kept_back_for_the_next_packet() -> None:
    """asyncio disables Nagle's algorithm only if the socket names its protocol."""
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
