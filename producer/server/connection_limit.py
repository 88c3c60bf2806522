"""The connections of one server: how many may be open at a time, and who makes room for a newcomer.

Each connection takes a descriptor, and its request may take another (of the queue, of a file). So that those of the
stores never run out, the number of connections is bounded by what the system allows this process to open. Nobody can
take all places without a key: at a full house the connections that have not asked anything go first, then those of
requests that no key was shown for. Only when the others serve callers that are known is a newcomer answered with 503.
Nor can one tenant take all places with its key: what it asks beyond its share is refused.
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
"""Descriptors for the ledger, the queue, logs, worker processes and whoever is just being answered with 503."""

BESIDE, UNREAD = 32, 32
"""So many newcomers may have said nothing yet, or be told that there is no room, and so many may just have come; they
are part of what is reserved."""

PER_FREE = 4
"""A tenant may have so many requests under way for each place that no known caller has: alone four fifths of all."""

FEWEST = 8
YOUNG_S = 1.0
"""For a newcomer that has not asked anything yet nobody is sent away who came so lately: a crowd that comes at once has
its questions on the way."""

ASKED_S = 10.0
"""After this time a request for which no key was shown makes room: a busy server needs a while to look at keys."""

LOOKED_AT = 64
"""Of those who wait the longest, so many are looked at for one that has nothing to say."""

HELD_BYTES = 32 * 1024 * 1024
"""What heads of requests that are not complete yet may take together."""

TELL_EVERY_S = 60.0


class Guest(Protocol):
    """A connection. `since`: when it began to wait, or to ask without a key."""

    since: float

    def is_silent(self) -> bool:
        """Whether nothing came from it that was not read yet."""

    def send_away(self) -> None:
        """End it at once."""


def connections_allowed() -> int:
    """How many connections this process may hold. Raises the soft limit of descriptors as far as it is needed and
    allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (ValueError, OSError):  # some systems allow less than they say
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FEWEST, min(MOST_CONNECTIONS, (soft - RESERVED) // 2))


class ConnectionLimit:
    """`held_bytes`: of heads that are not complete."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.held_bytes = 0
        self._most = most
        self._all: set[Guest] = set()
        self._waiting: dict[Guest, None] = {}  # for their next request; the oldest first
        self._unknown: dict[Guest, None] = {}  # whose request is under way; the oldest first
        self._tenant_of: dict[Guest, str] = {}  # whose request is under way, and for whom a key was shown
        self._held: Counter[str] = Counter()
        self._told_at = -TELL_EVERY_S

    def enter(self, guest: Guest) -> None:
        self._all.add(guest)
        over = len(self._all) - self._most
        if over > 0:
            _ = self._make_room(YOUNG_S) or (over > BESIDE and self._make_room(0.0))
        if over > BESIDE + UNREAD and self._waiting:
            self._send_away(next(iter(self._waiting)))
        self.waits(guest)

    def leave(self, guest: Guest) -> None:
        self._all.discard(guest)
        self._waiting.pop(guest, None)
        self._unknown.pop(guest, None)
        self._give_back(guest)

    def waits(self, guest: Guest) -> None:
        """It has no request under way."""
        guest.since = self.clock()
        self._unknown.pop(guest, None)
        self._give_back(guest)
        self._waiting[guest] = None

    def asks(self, guest: Guest, known: bool) -> bool:
        """Its request is under way. False: there is no room for it, and it is to be told so."""
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
        """It showed a key of this tenant (None: it needs none). False: that has its share of the places already."""
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
        """Send somebody away who has said nothing for so long, or has asked something without a key for a while."""
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
                "%d connections with requests under way are open, as many as the limit of open files allows: more are "
                "answered with 503; raise it (ulimit -n), or start another API process",
                self._most,
            )
