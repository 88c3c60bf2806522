"""What the limiter is asked for, and what it answers."""

from dataclasses import dataclass, field
from enum import StrEnum

from understudy.models.failure import Scope
from understudy.models.jobs.wait_reasons import HOLD_WORDS, Waiting, put_back_at
from understudy.models.queue import keys
from understudy.worker.planner.token_room import TokenRoom


class Hold(StrEnum):
    """What keeps a call from starting: our own pacing, or the provider's rejections."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    DAY = "day"
    IN_FLIGHT = "in_flight"
    STARTING = "starting"
    COOLDOWN = "cooldown"
    BREAKER = "breaker"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Provider, model and credential. `account` is unique across providers, e.g. `openai:main`."""

    provider: str
    model: str
    key: str
    account: str

    @property
    def flight_key(self) -> str:
        return keys.flight(self.account, self.model)

    def cooldown_key(self, scope: Scope) -> str:
        return keys.cooldown(scope, self.provider, self.account, self.model)

    @property
    def redis_keys(self) -> list[str]:
        """Rate, flight, the cooldowns of the three scopes, and the day, in the order that the scripts expect."""
        return [
            keys.rate(self.account, self.model),
            self.flight_key,
            *map(self.cooldown_key, (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER)),
            keys.day(self.account, self.model),
        ]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment with its limits; None: no known limit."""

    deployment: Deployment
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_in_flight: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its limits in the order that the scripts expect; 0: none."""
        per_minute = self.requests_per_minute, self.tokens_per_minute, self.max_in_flight
        return tuple(limit or 0 for limit in (*per_minute, self.requests_per_day, self.tokens_per_day))


@dataclass(frozen=True, slots=True)
class Grant:
    """A reservation: start in `wait_s` seconds. `streak` counts earlier cooldowns not yet ended by an answer.

    `start_ms` and `cost_ms` are its position and cost in the schedule of requests, to be refunded if the call is never
    made. `number`: calls of this account and model are numbered in the order in which they begin.
    """

    candidate: Candidate
    wait_s: float
    tokens: int
    streak: int
    start_ms: float
    cost_ms: float
    number: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was reserved. `until` is when to ask again, in unix seconds.

    `since` is when the cooled scope began to only reject calls, or when the rate that paces it was learned.
    """

    until: float
    hold: Hold
    deployment: Deployment
    since: float | None = None

    @property
    def waiting(self) -> Waiting:
        at = self.deployment
        return put_back_at(HOLD_WORDS[self.hold], at.provider, at.model, at.account)


@dataclass(frozen=True, slots=True)
class Outlook:
    """`starts`: calls that could start within the horizon. `cooled_for_s` None: can be chosen now.

    `hold` is what prevents more starts (None: nothing), `first_at` when the first could happen (unix seconds; now if
    the maximum is in flight, because its end is unknown). `refusing_for_s` is how long it has only rejected or failed
    calls (None: it is not cooled, and not only probed), `paced_for_s` how long a learned rate has been pacing it (None:
    it is not). `room` is what a token limit leaves for them (None: no limit).
    """

    starts: int
    cooled_for_s: float | None
    hold: Hold | None = None
    first_at: float = field(default=0.0, compare=False)
    refusing_for_s: float | None = field(default=None, compare=False)
    paced_for_s: float | None = field(default=None, compare=False)
    room: TokenRoom | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Ahead:
    """How far ahead a start may be booked: `longest_s`, or at limits below two calls per second `calls` calls, if
    longer, up to `slow_s`."""

    longest_s: float
    calls: float = 0.0
    slow_s: float = 0.0


BULK = Ahead(0.5, calls=2.0, slow_s=2.0)
"""Bulk books at most 0.5 s ahead (two calls at slow limits)."""

URGENT = Ahead(1.0, calls=4.0, slow_s=6.0)
"""Urgent jobs may book behind that."""

ANY_JOB = Ahead(1.0)
"""The default."""

NO_LIMIT = 1_000_000_000
"""Starts, where nothing limits them."""
