"""How many jobs a token limit lets start, each counted with its own size. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenRoom:
    """Tokens that a schedule has `left` until the planner's horizon (negative: booked beyond it), those per second,
    and the `burst` that may run ahead of it. Other limits allow `calls` starts."""

    left: float
    burst: float
    calls: int

    def fits(self, tokens: int) -> bool:
        """Whether a call of this size could start. One larger than the burst starts when the whole burst is
        available."""
        return self.left + max(self.burst - tokens, 0) >= 0

    def after(self, tokens: float, calls: int = 1) -> "TokenRoom":
        return TokenRoom(self.left - tokens, self.burst, max(self.calls - calls, 0))

    def __add__(self, other: "TokenRoom") -> "TokenRoom":
        return TokenRoom(self.left + other.left, self.burst + other.burst, self.calls + other.calls)


def too_many(starts: Iterable[tuple[str, int]], rooms: Mapping[str, TokenRoom]) -> dict[str, int]:
    """Steps that cannot start all of these (step, tokens), in this order, with the number they can start."""
    fitting: Counter[str] = Counter()
    full: dict[str, int] = {}
    rooms = dict(rooms)
    for step, tokens in starts:
        room = rooms.get(step)
        if room is None or step in full:
            continue
        if room.fits(tokens):
            fitting[step] += 1
            rooms[step] = room.after(tokens)
        else:
            full[step] = fitting[step]
    return full
