"""The address of the embedded Redis of a data folder, for its server and for readers."""

from pathlib import Path

RUNTIME_NAME = "redis.runtime"
"""File with the path of the socket folder, so that the next start can remove a leftover."""

RUNTIME_PREFIX = "us-"
SOCKET_NAME = "redis.sock"


def running_redis(data: Path) -> str | None:
    """The URL of the embedded server that is running for this folder; None: none is running."""
    try:
        runtime = Path((data / RUNTIME_NAME).read_text())
    except OSError:
        return None
    socket = runtime / SOCKET_NAME
    return url_of(socket) if runtime.name.startswith(RUNTIME_PREFIX) and socket.is_socket() else None


def url_of(socket: Path) -> str:
    return f"unix://{socket}?db=0"
