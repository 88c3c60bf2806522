"""Where the embedded Redis of a data folder answers, for its server and for everybody who only looks."""

from pathlib import Path

RUNTIME_NAME = "redis.runtime"
"""Where the folder of the socket is noted, so that the next start removes it when nobody else could."""

RUNTIME_PREFIX = "us-"
SOCKET_NAME = "redis.sock"


def running_redis(data: Path) -> str | None:
    """The URL of the embedded server that a running command keeps for this folder; None: none runs."""
    try:
        runtime = Path((data / RUNTIME_NAME).read_text())
    except OSError:
        return None
    socket = runtime / SOCKET_NAME
    return url_of(socket) if runtime.name.startswith(RUNTIME_PREFIX) and socket.is_socket() else None


def url_of(socket: Path) -> str:
    return f"unix://{socket}?db=0"
