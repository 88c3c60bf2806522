"""What the limiter keeps in Redis, as people and metrics read it: paces, schedules, calls in flight, cooldowns.

`worker/limits/*.lua` writes it and decides by it. Here it is only read, in one pipeline; times are unix seconds
of Redis' clock, rates are per minute.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from understudy.models.failure import Scope
from understudy.models.limits.day_use import DayUse, day_use
from understudy.models.limits.law import (
    BURST_MS,
    FAST_GROWTH,
    FAST_GROWTH_S,
    LONGEST_PROBE_PAUSE_MS,
    NO_LIMIT,
    PROBE_AFTER,
    PROBE_PAUSE_MS,
    SLOW_GROWTH,
    SLOW_GROWTH_S,
    USED_SHARE,
    WIDE,
)
from understudy.models.queue import keys
from understudy.models.queue.redis_values import number, text

if TYPE_CHECKING:
    from redis.asyncio import Redis

NAMES_MAX = 2_000
"""Of so many keys at most the state is read."""

SCAN_COUNT = 5_000
SCAN_ROUNDS = 200
"""A look over the keys of Redis ends after so many round trips; what was asked for by name is read in any case."""

KINDS = frozenset({"rate", "flight", "day", "cool"})


class Source(StrEnum):
    """Where a limit comes from."""

    CONFIGURED = "configured"  # understudy.toml
    TOLD = "told"  # the provider's headers
    LEARNED = "learned"  # its refusals
    UNKNOWN = "unknown"  # nothing limits yet


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as it holds now; `amount` None: none is known. `until`: it is lower than usual until then, because others
    use the account as well (told) or because tokens were refused (learned)."""

    amount: float | None
    source: Source
    until: float | None = None

    @property
    def pace(self) -> float:
        """What is made of it, per minute."""
        if self.amount is None:
            return float("inf")
        whole = self.source in (Source.CONFIGURED, Source.TOLD) and self.until is None
        return self.amount * USED_SHARE if whole else self.amount


@dataclass(frozen=True, slots=True)
class Schedule:
    """The requests, or the tokens, of one account and model. `free_at`: when the virtual schedule is next free."""

    free_at: float = 0.0
    told: float | None = None
    learned: float | None = None  # as it has grown by now
    braked: float | None = None
    braked_until: float = 0.0
    brake_source: Source = Source.TOLD

    def limit(self, configured: float | None) -> Limit:
        """Configured wins over told; what was learned from refusals, and a brake, win over both when they are lower."""
        if configured is not None:
            limit = Limit(float(configured), Source.CONFIGURED)
        else:
            limit = Limit(self.told, Source.TOLD if self.told is not None else Source.UNKNOWN)
        if self.learned is not None and self.learned < limit.pace:
            limit = Limit(self.learned, Source.LEARNED)
        if self.braked is not None and self.braked < limit.pace:
            limit = Limit(self.braked, self.brake_source, self.braked_until)
        return limit

    def next_start(self, configured: float | None, now: float) -> float:
        """When a call may start at the earliest, as far as this schedule is concerned."""
        limit = self.limit(configured)
        return now if limit.amount is None else max(now, self.free_at - max(BURST_MS / 1000 - 60.0 / limit.pace, 0.0))


@dataclass(frozen=True, slots=True)
class AccountState:
    """One account with one model."""

    requests: Schedule = Schedule()
    tokens: Schedule = Schedule()
    in_flight: int = 0
    window: float | None = None  # slow start: as many may be in flight by now; None: it holds nobody up
    day: DayUse = field(default_factory=DayUse)

    def most_in_flight(self, configured: int | None) -> Limit:
        """How many calls may be in flight: configured, or fewer while the first calls find out what is taken."""
        if self.window is not None and (configured is None or self.window < configured):
            return Limit(float(int(self.window)), Source.LEARNED)
        return Limit(configured, Source.UNKNOWN if configured is None else Source.CONFIGURED)


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Nobody picks the scope until a time. `in_a_row`: cooldowns without an answer between, the first of them `since`.

    `probing`: from its end on single calls are let through until one is answered, the next at `next_start`.
    """

    scope: Scope
    provider: str
    account: str | None
    model: str | None
    until: float
    in_a_row: int
    since: float
    probing: bool
    next_start: float
    reason: str

    def covers(self, provider: str, account: str, model: str | None) -> bool:
        return self.provider == provider and self.account in (None, account) and self.model in (None, model)


@dataclass(frozen=True, slots=True)
class LimitState:
    """All that the limiter knew at one moment, by (account, model)."""

    now: float
    accounts: Mapping[tuple[str, str], AccountState]
    cooldowns: tuple[Cooldown, ...]

    def of(self, account: str, model: str | None) -> AccountState:
        return self.accounts.get((account, model or ""), AccountState())

    def cooldowns_of(self, provider: str, account: str, model: str | None) -> list[Cooldown]:
        return [each for each in self.cooldowns if each.covers(provider, account, model)]


async def read_limits(redis: "Redis", named: Iterable[tuple[str, str]] = (), *, others: bool = True) -> LimitState:
    """The state of these (account, model), and of `others` that `limiter_keys` finds. Raises RedisError, OSError."""
    names = dict.fromkeys(name for account, model in named for name in _keys_of(account, model))
    names |= dict.fromkeys(sorted(await limiter_keys(redis))) if others else {}
    wanted = list(names)[:NAMES_MAX]
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for name in wanted:
            pipeline.hgetall(name)
        (seconds, micros), *hashes = [_unless_odd(reply) for reply in await pipeline.execute(raise_on_error=False)]
    now = int(seconds) + int(micros) / 1_000_000
    return state_of({name: _text(fields) for name, fields in zip(wanted, hashes, strict=True) if fields}, now)


def state_of(hashes: Mapping[str, Mapping[str, str]], now: float) -> LimitState:
    """The meaning of the limiter's hashes, by key."""
    accounts: dict[tuple[str, str], AccountState] = {}
    rates, flights, days = (_by_account(hashes, kind) for kind in ("rate", "flight", "day"))
    for name in {**rates, **flights, **days}:
        rate = rates.get(name, {})
        in_flight, window = _in_flight(flights.get(name, {}), now), number(rate.get("window"))
        accounts[name] = AccountState(
            _schedule(rate, "requests", now),
            _schedule(rate, "tokens", now),
            in_flight,
            window if window is not None and window < WIDE else None,
            day_use(days.get(name, {}), now),
        )
    cooldowns = (_cooldown(key, fields, now) for key, fields in hashes.items() if key.startswith(keys.cool("")))
    return LimitState(now, accounts, tuple(each for each in cooldowns if each is not None))


async def limiter_keys(redis: "Redis") -> set[str]:
    """The keys of the limiter that a bounded look finds. Raises RedisError, OSError."""
    cursor, found = 0, set[str]()
    for _ in range(SCAN_ROUNDS):
        cursor, names = await redis.scan(cursor, match=keys.LIMITS, count=SCAN_COUNT)
        found.update(map(text, names))
        if not cursor:
            break
    return {name for name in found if name.count(":") > 1 and name.split(":")[1] in KINDS}


def _keys_of(account: str, model: str) -> list[str]:
    provider = account.partition(":")[0]
    scopes = (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER)
    return [
        keys.rate(account, model),
        keys.flight(account, model),
        keys.day(account, model),
        *(keys.cooldown(scope, provider, account, model) for scope in scopes),
    ]


def _text(fields: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    return {text(name): text(value) for name, value in fields.items()}


def _unless_odd(reply: Any) -> Any:
    """A reply of Redis; nothing of a key that holds no hash."""
    if isinstance(reply, Exception) and "WRONGTYPE" in str(reply):
        return {}
    if isinstance(reply, Exception):
        raise reply
    return reply


def _by_account(hashes: Mapping[str, Mapping[str, str]], kind: str) -> dict[tuple[str, str], Mapping[str, str]]:
    """An account is `provider:name`; neither has a colon in it, a model may have."""
    found = {}
    for key, fields in hashes.items():
        _, this, *rest = key.split(":", 4)
        if this == kind and len(rest) == 3:
            found[f"{rest[0]}:{rest[1]}", rest[2]] = fields
    return found


def _schedule(rate: Mapping[str, str], what: str, now: float) -> Schedule:
    braked_until = _s(rate.get(f"brake_{what}_until"))
    learned = _rate(rate.get("learned")) if what == "requests" else None
    return Schedule(
        free_at=_s(rate.get(what)),
        told=_rate(rate.get(f"told_{what}")),
        learned=None if learned is None else _pace(learned, rate, now),
        braked=_rate(rate.get(f"brake_{what}")) if braked_until > now else None,
        braked_until=braked_until,
        brake_source=Source.TOLD if what == "requests" or rate.get("brake_tokens") == "1" else Source.LEARNED,
    )


def _pace(learned: float, rate: Mapping[str, str], now: float) -> float | None:
    """While a trial is under way its pace, else the learned rate as it has grown."""
    trial = _rate(rate.get("trial_pace")) if "trial_share" in rate else None
    if trial is not None and now < _s(rate.get("trial_until")):
        return trial
    age_s = max(now - _s(rate.get("learned_at")), 0.0)
    slow_s = 0.0 if rate.get("grows_fast") == "1" else min(age_s, SLOW_GROWTH_S)
    grown = learned * SLOW_GROWTH**slow_s * FAST_GROWTH ** min(age_s - slow_s, FAST_GROWTH_S)
    return grown if grown < NO_LIMIT else None


def _in_flight(flight: Mapping[str, str], now: float) -> int:
    """Over the fleet: a field per worker, `count|end of its lease`. The counts of workers that died do not count."""
    counts = (value.partition("|") for value in flight.values())
    return sum(int(number(count) or 0) for count, _, lease in counts if _s(lease) > now)


def _cooldown(key: str, fields: Mapping[str, str], now: float) -> Cooldown | None:
    """None when it has ended and nothing of it is left to tell."""
    kind, _, rest = key.removeprefix(keys.cool("")).partition(":")
    until, in_a_row = _s(fields.get("until")), int(number(fields.get("streak")) or 0)
    probing = in_a_row >= PROBE_AFTER and (kind == Scope.PROVIDER or fields.get("hinted") == "0")
    if kind not in (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER) or (until <= now and not probing):
        return None
    provider, _, name = rest.partition(":")
    account, model = None, None
    if kind == Scope.PROVIDER:
        model = name
    else:
        word, _, model_name = name.partition(":")
        account, model = f"{provider}:{word}", model_name or None
    since, next_start = _s(fields.get("since")) or now, until
    if probing:
        latest = _s(fields.get("probe"))
        pause_s = min((latest - since) / 6, LONGEST_PROBE_PAUSE_MS / 1000) if kind == Scope.PROVIDER else 0.0
        next_start = max(until, latest + max(pause_s, PROBE_PAUSE_MS / 1000))
    scope, reason = Scope(kind), fields.get("reason", "")
    return Cooldown(scope, provider, account, model, until, in_a_row, since, probing, next_start, reason)


def _rate(value: str | None) -> float | None:
    rate = number(value)
    return rate if rate is not None and rate > 0 else None


def _s(milliseconds: str | None) -> float:
    return (number(milliseconds) or 0.0) / 1000
