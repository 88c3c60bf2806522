"""Limits the open connections of a server, and decides which one is closed for a new one.

Each connection takes a file descriptor, and its request may take another (for the queue or a file). So that the stores
never run out of descriptors, the number of connections is limited by the process's limit of open files. Callers without
a key cannot occupy all slots: when they are full, idle connections are closed first, then those whose requests have
shown no key. A new connection gets a 503 only when all others serve authenticated callers. Nor can one tenant occupy
all slots: requests beyond its share are rejected.
"""

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Protocol

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 10_000
RESERVED = 128
"""Descriptors for the ledger, the queue, logs, worker processes and connections that get a 503."""

SILENT, UNREAD = 32, 32
"""Connections beyond the limit: those that are silent or get a 503, and those just accepted. Both are part of
RESERVED."""

PER_FREE = 4
"""A tenant may have this many requests in progress per slot not used by authenticated callers: alone, four fifths of
all slots."""

FEWEST = 8
YOUNG_S = 1.0
"""Seconds. A connection younger than this is not closed for a new silent one: in a burst of connections, the requests
are still on their way."""

ASKED_S = 10.0
"""Seconds after which a request without a verified key may be closed: a busy server needs time to check keys."""

LOOKED_AT = 64
"""Longest-waiting connections that are examined to find a silent one."""

HELD_BYTES = 32 * 1024 * 1024
"""Bytes that incomplete request heads may take together."""

TELL_EVERY_S = 60.0


class Guest(Protocol):
    """A connection. `since`: when it started to wait, or sent a request without a verified key."""

    since: float

    def is_silent(self) -> bool:
        """Whether it has no unread data."""

    def send_away(self) -> None:
        """Close it at once."""


def connections_allowed() -> int:
    """The number of connections this process may hold. Raises the soft limit of descriptors as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (ValueError, OSError):  # some systems allow less than they report
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FEWEST, min(MOST_CONNECTIONS, (soft - RESERVED) // 2))


class ConnectionLimit:
    """`held_bytes`: bytes of incomplete request heads."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.held_bytes = 0
        self._most = most
        self._all: set[Guest] = set()
        self._waiting: dict[Guest, None] = {}  # idle, oldest first
        self._unknown: dict[Guest, None] = {}  # with a request in progress and no verified key, oldest first
        self._tenant_of: dict[Guest, str] = {}  # with a request in progress and a verified key
        self._held: Counter[str] = Counter()
        self._told_at = -TELL_EVERY_S

    def enter(self, guest: Guest) -> None:
        self._all.add(guest)
        over = len(self._all) - self._most
        if over > 0:
            made = self._make_room(YOUNG_S)
            if not made and over > SILENT:
                self._make_room(0.0)
        if over > SILENT + UNREAD and self._waiting:
            self._send_away(next(iter(self._waiting)))
        self.waits(guest)

    def leave(self, guest: Guest) -> None:
        self._all.discard(guest)
        self._waiting.pop(guest, None)
        self._unknown.pop(guest, None)
        self._give_back(guest)

    def waits(self, guest: Guest) -> None:
        """The connection has no request in progress."""
        guest.since = self.clock()
        self._unknown.pop(guest, None)
        self._give_back(guest)
        self._waiting[guest] = None

    def asks(self, guest: Guest, known: bool) -> bool:
        """A request starts. False: there is no capacity, and it should get a 503."""
        self._waiting.pop(guest, None)
        if known:
            return True
        room = len(self._all) - len(self._waiting) <= self._most
        guest.since = self.clock()
        self._unknown[guest] = None
        if not room:
            self._tell()
        return room

    def is_known(self, guest: Guest, tenant: str | None) -> bool:
        """It is authenticated for this tenant (None: no key required). False: the tenant already uses its share of the
        slots."""
        self._unknown.pop(guest, None)
        self._give_back(guest)
        if tenant is None:
            return True
        if self._held[tenant] >= PER_FREE * (self._most - len(self._tenant_of)):
            return False
        self._tenant_of[guest] = tenant
        self._held[tenant] += 1
        return True

    def _give_back(self, guest: Guest) -> None:
        tenant = self._tenant_of.pop(guest, None)
        if tenant is None:
            return
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]

    def _make_room(self, waited_s: float) -> bool:
        """Close a connection that has been silent for `waited_s`, or whose request has had no verified key for a
        while."""
        waiting = (each for each in islice(self._waiting, LOOKED_AT) if each.is_silent())
        for group, age_s in ((waiting, waited_s), (iter(self._unknown), ASKED_S)):
            oldest = next(group, None)
            if oldest is not None and self.clock() - oldest.since >= age_s:
                self._send_away(oldest)
                return True
        return False

    def _send_away(self, guest: Guest) -> None:
        self.leave(guest)
        guest.send_away()

    def _tell(self) -> None:
        if self.clock() - self._told_at >= TELL_EVERY_S:
            self._told_at = self.clock()
            log.warning(
                "%d connections with requests in progress are open, the maximum for the limit of open files: more get "
                "a 503; raise the limit (ulimit -n), or start another API process",
                self._most,
            )
