"""The limiter's state in Redis, for people and metrics: paces, schedules, calls in flight, cooldowns.

`worker/limits/*.lua` writes it and decides by it. This module reads it, with two scripts that share the Lua of those
decisions (`models/limits/parts/`), so what is shown is what decides, and clears it. Times are unix seconds of Redis'
clock, rates are per minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from understudy.models.config.provider_settings import Limits
from understudy.models.failure import Scope
from understudy.models.limits.constants import BURST_MS, USED_SHARE
from understudy.models.queue import keys
from understudy.models.queue.lua_scripts import script_text
from understudy.models.queue.redis_values import number, text

if TYPE_CHECKING:
    from redis.asyncio import Redis

NAMES_MAX = 1_000
"""At most this many account-model pairs, and as many cooldowns, are read."""

DAY_S = 86_400.0

READ_TOGETHER = 100
"""Read per script, so that no script blocks other clients of Redis for more than a millisecond or two."""

ACCOUNTS = script_text("models/limits/read_accounts.lua")
COOLDOWNS = script_text("models/limits/read_cooldowns.lua")

SCAN_COUNT = 5_000
SCAN_ROUNDS = 200
"""A scan of the keys of Redis ends after this many round trips; keys requested by name are read in any case."""

NOTHING = (b"",) * 5
"""A schedule without any state."""

USED_UP = 1.0
"""The brake while headers report that a daily limit is used up."""

KINDS = frozenset({"rate", "flight", "day", "cool"})


class Source(StrEnum):
    """The origin of a limit."""

    CONFIGURED = "configured"  # understudy.toml
    ADVERTISED = "advertised"  # the provider's headers
    LEARNED = "learned"  # its refusals
    UNKNOWN = "unknown"  # no limit yet


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force; `amount` None: unknown. `until`: it is reduced until then, because others use the account as
    well (advertised) or because tokens were refused (learned)."""

    amount: float | None
    source: Source
    until: float | None = None

    @property
    def pace(self) -> float:
        """The pace we keep, per minute: 99 % of a configured or advertised limit, all of a learned one."""
        if self.amount is None:
            return float("inf")
        whole = self.source in (Source.CONFIGURED, Source.ADVERTISED) and self.until is None
        return self.amount * USED_SHARE if whole else self.amount


@dataclass(frozen=True, slots=True)
class Schedule:
    """The requests, or the tokens, of one account and model. `free_at`: when the virtual schedule is next free."""

    free_at: float = 0.0
    advertised: float | None = None
    learned: float | None = None  # including growth up to now
    braked: float | None = None
    braked_until: float = 0.0
    brake_source: Source = Source.ADVERTISED

    def limit(self, configured: float | None) -> Limit:
        """Configured overrides advertised; a rate learned from refusals, and a brake, override both if lower."""
        if configured is not None:
            limit = Limit(float(configured), Source.CONFIGURED)
        else:
            limit = Limit(self.advertised, Source.ADVERTISED if self.advertised is not None else Source.UNKNOWN)
        if self.learned is not None and self.learned < limit.pace:
            limit = Limit(self.learned, Source.LEARNED)
        if self.braked is not None and self.braked < limit.pace:
            limit = Limit(self.braked, self.brake_source, self.braked_until)
        return limit

    def next_start(self, configured: float | None, now: float) -> float:
        """The earliest start of a call, as far as this schedule is concerned."""
        limit = self.limit(configured)
        return now if limit.amount is None else max(now, self.free_at - max(BURST_MS / 1000 - 60.0 / limit.pace, 0.0))


@dataclass(frozen=True, slots=True)
class DayUse:
    """Calls and tokens of one UTC day; calls in flight count with their expected usage."""

    requests: int = 0
    tokens: int = 0

    def next_start(self, limits: Limits, now: float) -> float:
        """The earliest start of a call, as far as the current day's limits are concerned."""
        uses = ((self.requests, limits.requests_per_day), (self.tokens, limits.tokens_per_day))
        return end_of_day(now) if any(limit is not None and used >= limit for used, limit in uses) else now


def end_of_day(now: float) -> float:
    """The next midnight UTC, in unix seconds."""
    return (now // DAY_S + 1) * DAY_S


@dataclass(frozen=True, slots=True)
class AccountState:
    """One account with one model."""

    requests: Schedule = Schedule()
    tokens: Schedule = Schedule()
    in_flight: int = 0
    window: float | None = None  # slow start: this many may be in flight now; None: no restriction
    day: DayUse = field(default_factory=DayUse)

    def most_in_flight(self, configured: int | None) -> Limit:
        """The maximum calls in flight: configured, or less during slow start."""
        if self.window is not None and (configured is None or self.window < configured):
            return Limit(float(int(self.window)), Source.LEARNED)
        return Limit(configured, Source.UNKNOWN if configured is None else Source.CONFIGURED)


@dataclass(frozen=True, slots=True)
class Cooldown:
    """No one uses the scope until a given time. `in_a_row`: consecutive cooldowns without an answer in between, the
    first of them at `since`.

    `probing`: after its end single calls are let through until one is answered, the next at `next_start`.
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
    """The limiter's complete state at one moment, by (account, model)."""

    now: float
    accounts: Mapping[tuple[str, str], AccountState]
    cooldowns: tuple[Cooldown, ...]

    def of(self, account: str, model: str | None) -> AccountState:
        return self.accounts.get((account, model or ""), AccountState())

    def cooldowns_of(self, provider: str, account: str, model: str | None) -> list[Cooldown]:
        return [each for each in self.cooldowns if each.covers(provider, account, model)]


async def read_limits(redis: "Redis", named: Iterable[tuple[str, str]] = (), *, others: bool = True) -> LimitState:
    """The state of these (account, model), and of `others` found by `limiter_keys`. Raises RedisError, OSError."""
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
        for names in (asked[at : at + READ_TOGETHER] for at in range(0, len(asked), READ_TOGETHER)):
            hashes = [key for name in names for key in (keys.rate(*name), keys.flight(*name), keys.day(*name))]
            pipeline.eval(ACCOUNTS, len(hashes), *hashes, "")
        for chunk in (cooling[at : at + READ_TOGETHER] for at in range(0, len(cooling), READ_TOGETHER)):
            pipeline.eval(COOLDOWNS, len(chunk), *chunk, "", *(int(_is_breaker(key)) for key in chunk))
        (seconds, micros), *replies = await pipeline.execute()
    rows = [row for reply in replies for row in reply]
    now = int(seconds) + int(micros) / 1_000_000
    states = {name: _account(row, now) for name, row in zip(asked, rows[: len(asked)], strict=True) if any(row)}
    ends = (_cooldown(key, row) for key, row in zip(cooling, rows[len(asked) :], strict=True) if row)
    return LimitState(now, states, tuple(each for each in ends if each is not None))


async def limiter_keys(redis: "Redis") -> set[str]:
    """The limiter's keys found by a bounded scan. Raises RedisError, OSError."""
    cursor, found = 0, set[str]()
    for _ in range(SCAN_ROUNDS):
        cursor, names = await redis.scan(cursor, match=keys.LIMITS, count=SCAN_COUNT)
        found.update(map(text, names))
        if not cursor:
            break
    return {name for name in found if name.count(":") > 1 and name.split(":")[1] in KINDS}


async def clear_limits(redis: "Redis", provider: str, account: str | None = None) -> int:
    """Clear everything that blocks an account of a provider, or all of its accounts (None). Returns the number of
    records.

    Cooldowns of every scope, breakers, rates learned from refusals and limits advertised in headers: the next calls
    start as if nothing were known. Calls in flight and daily usage are facts and stay. A breaker applies to a model for
    all accounts, so it is closed in either case. Raises RedisError, OSError.
    """
    owner = account or provider
    of_scope = {Scope.MODEL: owner, Scope.ACCOUNT: owner, Scope.PROVIDER: provider}
    beginnings = (keys.rate(owner, ""), *(keys.cool(f"{scope}:{whose}:") for scope, whose in of_scope.items()))
    found = [name for name in await limiter_keys(redis) if f"{name}:".startswith(beginnings)]
    return int(await redis.delete(*found)) if found else 0


def _cooldowns_of(account: str, model: str) -> list[str]:
    provider = account.partition(":")[0]
    return [keys.cooldown(scope, provider, account, model) for scope in (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER)]


def _account_in(key: str) -> tuple[str, str] | None:
    """Account and model in the key of a rate, flight or day. An account is `provider:name`; neither part contains a
    colon, a model may."""
    _, _, *rest = key.split(":", 4)
    return (f"{rest[0]}:{rest[1]}", rest[2]) if len(rest) == 3 else None


def _is_breaker(key: str) -> bool:
    return key.startswith(keys.cool(f"{Scope.PROVIDER}:"))


def _account(row: Sequence[Any], now: float) -> AccountState:
    """From a row of `read_accounts.lua`."""
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
    free_ms, advertised, learned, brake, brake_ms = map(number, row)
    braked_until = _s(brake_ms)
    braked = _rate(brake) if braked_until > now else None
    source = Source.LEARNED if refusals_brake and brake != USED_UP else Source.ADVERTISED
    return Schedule(_s(free_ms), _rate(advertised), _rate(learned), braked, braked_until, source)


def _cooldown(key: str, row: Sequence[bytes]) -> Cooldown | None:
    """From a row of `read_cooldowns.lua`; None if the key names no scope of ours."""
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
