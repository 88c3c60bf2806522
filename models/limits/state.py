"""What the limiter keeps in Redis, as people and metrics read it: paces, schedules, calls in flight, cooldowns.

`worker/limits/*.lua` writes it and decides by it. Here it is only read, by two scripts that share the Lua of that law
(`models/limits/parts/`), so that what is shown is what is decided by. Times are unix seconds of Redis' clock, rates are
per minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from understudy.models.failure import Scope
from understudy.models.limits.day_use import DayUse
from understudy.models.limits.law import BURST_MS, USED_SHARE
from understudy.models.queue import keys
from understudy.models.queue.lua_scripts import script_text
from understudy.models.queue.redis_values import number, text

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

NAMES_MAX = 1_000
"""The state of at most this many accounts with a model, and of as many cooldowns, is read."""

READ_TOGETHER = 100
"""By one script, so that none keeps other clients of Redis waiting for more than a millisecond or two."""

ACCOUNTS = script_text("models/limits/read_accounts.lua")
COOLDOWNS = script_text("models/limits/read_cooldowns.lua")

SCAN_COUNT = 5_000
SCAN_ROUNDS = 200
"""A look over the keys of Redis ends after so many round trips; what was asked for by name is read in any case."""

NOTHING = (b"",) * 5
"""A schedule of which nothing is known."""

USED_UP = 1.0
"""The brake while headers say that a day's limit is used up."""

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
    accounts = dict.fromkeys(named)
    cooldowns = dict.fromkeys(key for account, model in accounts for key in _cooldowns_of(account, model))
    for key in sorted(await limiter_keys(redis)) if others else ():
        if key.startswith(keys.cool("")):
            cooldowns[key] = None
        elif (name := _account_in(key)) is not None:
            accounts[name] = None
    asked, cooling = list(accounts)[:NAMES_MAX], list(cooldowns)[:NAMES_MAX]
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for names in _chunks(asked):
            hashes = [key for name in names for key in (keys.rate(*name), keys.flight(*name), keys.day(*name))]
            pipeline.eval(ACCOUNTS, len(hashes), *hashes, "")
        for chunk in _chunks(cooling):
            pipeline.eval(COOLDOWNS, len(chunk), *chunk, "", *(int(_is_breaker(key)) for key in chunk))
        (seconds, micros), *replies = await pipeline.execute()
    rows = [row for reply in replies for row in reply]
    now = int(seconds) + int(micros) / 1_000_000
    states = {name: _account(row, now) for name, row in zip(asked, rows[: len(asked)], strict=True) if any(row)}
    ends = (_cooldown(key, row) for key, row in zip(cooling, rows[len(asked) :], strict=True) if row)
    return LimitState(now, states, tuple(each for each in ends if each is not None))


async def limiter_keys(redis: "Redis") -> set[str]:
    """The keys of the limiter that a bounded look finds. Raises RedisError, OSError."""
    cursor, found = 0, set[str]()
    for _ in range(SCAN_ROUNDS):
        cursor, names = await redis.scan(cursor, match=keys.LIMITS, count=SCAN_COUNT)
        found.update(map(text, names))
        if not cursor:
            break
    return {name for name in found if name.count(":") > 1 and name.split(":")[1] in KINDS}


def _chunks(names: Sequence[T]) -> list[Sequence[T]]:
    return [names[start : start + READ_TOGETHER] for start in range(0, len(names), READ_TOGETHER)]


def _cooldowns_of(account: str, model: str) -> list[str]:
    provider = account.partition(":")[0]
    return [keys.cooldown(scope, provider, account, model) for scope in (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER)]


def _account_in(key: str) -> tuple[str, str] | None:
    """Account and model of a rate, flight or day. An account is `provider:name`; neither has a colon in it, a model may
    have."""
    _, _, *rest = key.split(":", 4)
    return (f"{rest[0]}:{rest[1]}", rest[2]) if len(rest) == 3 else None


def _is_breaker(key: str) -> bool:
    return key.startswith(keys.cool(f"{Scope.PROVIDER}:"))


def _account(row: Sequence[Any], now: float) -> AccountState:
    """Of a row of `read_accounts.lua`."""
    rate, in_flight, day = row
    requests, tokens, window = rate or (NOTHING, NOTHING, b"")
    used = [int(number(each) or 0) for each in day]
    return AccountState(
        _schedule(requests, now),
        _schedule(tokens, now, refusals_brake=True),
        int(number(in_flight or b"") or 0),
        number(window),
        DayUse(*used),
    )


def _schedule(row: Sequence[bytes], now: float, *, refusals_brake: bool = False) -> Schedule:
    free_ms, told, learned, brake, brake_ms = map(number, row)
    braked_until = _s(brake_ms)
    braked = _rate(brake) if braked_until > now else None
    source = Source.LEARNED if refusals_brake and brake != USED_UP else Source.TOLD
    return Schedule(_s(free_ms), _rate(told), _rate(learned), braked, braked_until, source)


def _cooldown(key: str, row: Sequence[bytes]) -> Cooldown | None:
    """Of a row of `read_cooldowns.lua`; None when the key names no scope of ours."""
    kind, _, rest = key.removeprefix(keys.cool("")).partition(":")
    if kind not in (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER):
        return None
    provider, _, name = rest.partition(":")
    account, model = None, None
    if kind == Scope.PROVIDER:
        model = name
    else:
        word, _, model_name = name.partition(":")
        account, model = f"{provider}:{word}", model_name or None
    ends_ms, in_a_row, probing, next_ms, since_ms = map(number, row[:5])
    return Cooldown(
        Scope(kind),
        provider,
        account,
        model,
        until=_s(ends_ms),
        in_a_row=int(in_a_row or 0),
        since=_s(since_ms),
        probing=bool(probing),
        next_start=_s(next_ms),
        reason=text(row[5]),
    )


def _rate(per_minute: float | None) -> float | None:
    return per_minute if per_minute is not None and per_minute > 0 else None


def _s(milliseconds: float | None) -> float:
    return (milliseconds or 0.0) / 1000
