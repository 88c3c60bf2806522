"""Each provider, key and model in use: limits and their sources, usage, cooldowns, and why it is disabled.

Merges three sources: the configuration, the counts in the ledger, and the limiter's state in Redis.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from understudy.models.config.catalog import ResolvedProvider, account_of, keys_of, limits_of
from understudy.models.config.provider_settings import ApiKey, Limits
from understudy.models.config.settings import Settings
from understudy.models.disabled import DisabledCredential
from understudy.models.failure import Scope
from understudy.models.limits.state import AccountState, Cooldown, Limit, LimitState, Schedule, end_of_day, read_limits
from understudy.models.objects.provider import (
    Calls,
    CooldownObject,
    DayObject,
    DisabledObject,
    InFlight,
    LimitObject,
    ProviderObject,
    ProviderState,
)
from understudy.models.routing.model_names import named_deployments
from understudy.models.store import Store
from understudy.models.store.metrics import CallCount

CALLS_OVER_S = 60.0
LANES_MAX = 1_000
"""Lanes whose models are considered."""


@dataclass(frozen=True, slots=True)
class LedgerPart:
    """Data from the ledger: disabled credentials, calls of the last minute, and (provider, model) of open jobs."""

    aside: Sequence[DisabledCredential] = ()
    calls: Sequence[CallCount] = ()
    models: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A credential of a provider with a model. `key` None: the required key is missing; `model` None: none
    configured."""

    provider: ResolvedProvider
    key: ApiKey | None
    model: str | None

    @property
    def account(self) -> str:
        return account_of(self.provider.name, self.key) if self.key else ""


async def read_ledger(store: Store) -> LedgerPart:
    """Raises StoreError."""
    steps: dict[tuple[str, str], None] = {}
    for lane in (await store.planning.lanes())[:LANES_MAX]:
        chain = await store.get_chain(lane.chain_id)
        steps |= dict.fromkeys((step.provider, step.model) for step in chain.steps)
    calls = await store.metrics.calls_since(await store.now() - CALLS_OVER_S)
    return LedgerPart(await store.credentials.listed(), calls, sorted(steps))


async def read_live(connection: redis.asyncio.Redis, settings: Settings, ledger: LedgerPart) -> LimitState:
    """Raises RedisError, OSError, TimeoutError."""
    found = places(settings, ledger, None)
    names = [(place.account, place.model) for place in found if place.key is not None and place.model is not None]
    return await read_limits(connection, names)


async def live_of(connection: redis.asyncio.Redis, settings: Settings, ledger: LedgerPart) -> LimitState | None:
    """As `read_live`; None when Redis does not answer."""
    try:
        return await read_live(connection, settings, ledger)
    except (RedisError, OSError, TimeoutError):
        return None


def places(settings: Settings, ledger: LedgerPart, live: LimitState | None) -> list[Place]:
    """Each key with its models from the configuration, open jobs, recent calls and the limiter."""
    providers: dict[str, ResolvedProvider] = {}
    models: dict[str, dict[str, None]] = {}
    for provider, model in named_deployments(settings):
        providers[provider.name] = provider
        models.setdefault(provider.name, {}).update({model: None} if model else {})
    used = [*ledger.models, *sorted({(each.provider, each.model) for each in ledger.calls})]
    for name, model in used:
        if name in models:
            models[name][model] = None
    return [
        Place(provider, key, model)
        for name, provider in providers.items()
        for key in keys_of(provider) or (None,)
        for model in _models_of(name, key, models[name], ledger, live) or (None,)
    ]


def _models_of(
    provider: str, key: ApiKey | None, named: Iterable[str], ledger: LedgerPart, live: LimitState | None
) -> list[str]:
    if key is None:
        return list(named)
    account = account_of(provider, key)
    more = {row.model for row in ledger.aside if (row.provider, row.key) == (provider, key.name) and row.model}
    more |= {model for of, model in live.accounts if of == account} if live else set()
    return list(dict.fromkeys([*named, *sorted(more)]))


def provider_documents(settings: Settings, ledger: LedgerPart, live: LimitState | None) -> list[ProviderObject]:
    """One document per key and model. Without `live`, values from Redis are None."""
    return [_document(place, settings, ledger, live) for place in places(settings, ledger, live)]


def _document(place: Place, settings: Settings, ledger: LedgerPart, live: LimitState | None) -> ProviderObject:
    provider, key, model = place.provider.name, place.key, place.model
    configured = limits_of(settings.providers[provider], model or "", key) if key else Limits()
    state = live.of(place.account, model) if live else AccountState()
    cooldowns = live.cooldowns_of(provider, place.account, model) if live and key else []
    aside = [row for row in ledger.aside if key and (row.provider, row.key) == (provider, key.name)]
    aside = [row for row in aside if row.model in ("", model)]
    in_flight, next_start = _in_flight(state, configured.max_in_flight, live), _next_start(state, configured, live)
    return {
        "object": "provider",
        "provider": provider,
        "key": key.name if key else None,
        "account": place.account or None,
        "model": model,
        "protocol": place.provider.kind,
        "base_url": place.provider.base_url,
        "live": live is not None,
        "state": _state(key, aside, cooldowns, in_flight, next_start, live),
        "requests_per_minute": _limit(state.requests, configured.requests_per_minute),
        "tokens_per_minute": _limit(state.tokens, configured.tokens_per_minute),
        "requests_per_day": _of_day(state.day.requests, configured.requests_per_day, live),
        "tokens_per_day": _of_day(state.day.tokens, configured.tokens_per_day, live),
        "in_flight": in_flight,
        "next_start": next_start,
        "last_minute": _calls(place, ledger),
        "cooldowns": [_cooldown(each) for each in cooldowns],
        "disabled": [_disabled(row) for row in aside],
    }


def _limit(schedule: Schedule, configured: int | None) -> LimitObject:
    limit: Limit = schedule.limit(configured)
    amount = None if limit.amount is None else round(limit.amount, 1)
    return {"limit": amount, "source": limit.source, "until": limit.until, "configured": configured}


def _of_day(used: int, limit: int | None, live: LimitState | None) -> DayObject | None:
    """None without a daily limit."""
    if limit is None:
        return None
    return {"limit": limit, "used": used if live else None, "until": end_of_day(live.now) if live else None}


def _in_flight(state: AccountState, configured: int | None, live: LimitState | None) -> InFlight:
    limit = state.most_in_flight(configured)
    amount = None if limit.amount is None else int(limit.amount)
    return {
        "limit": amount,
        "source": limit.source,
        "configured": configured,
        "now": state.in_flight if live else None,
    }


def _next_start(state: AccountState, configured: Limits, live: LimitState | None) -> float | None:
    """When the schedules allow the next call; None: now."""
    if live is None:
        return None
    requests = state.requests.next_start(configured.requests_per_minute, live.now)
    tokens = state.tokens.next_start(configured.tokens_per_minute, live.now)
    latest = max(requests, tokens, state.day.next_start(configured, live.now))
    return latest if latest > live.now else None


def _calls(place: Place, ledger: LedgerPart) -> Calls:
    counts: Counter[str] = Counter(answered=0, refused=0, failed=0)
    for each in ledger.calls:
        if place.key and (each.provider, each.key, each.model) == (place.provider.name, place.key.name, place.model):
            how = "answered" if each.failure is None else "refused" if each.failure.traits.load else "failed"
            counts[how] += each.calls
    return {"answered": counts["answered"], "refused": counts["refused"], "failed": counts["failed"]}


def _cooldown(cooldown: Cooldown) -> CooldownObject:
    return {
        "scope": cooldown.scope,
        "until": cooldown.until,
        "in_a_row": cooldown.in_a_row,
        "since": cooldown.since,
        "probing": cooldown.probing,
        "next_start": cooldown.next_start,
        "reason": cooldown.reason,
    }


def _disabled(row: DisabledCredential) -> DisabledObject:
    return {
        "model": row.model or None,
        "failure": row.failure,
        "reason": row.reason,
        "since": row.since,
        "probe_at": row.probe_at,
    }


def _state(
    key: ApiKey | None,
    aside: Sequence[DisabledCredential],
    cooldowns: Sequence[Cooldown],
    in_flight: InFlight,
    next_start: float | None,
    live: LimitState | None,
) -> ProviderState:
    """One word: what would happen to a call that wants to start now."""
    if key is None:
        return "no_key"
    if aside:
        return "disabled"
    if live is None:
        return "unknown"
    cooling = [each for each in cooldowns if each.until > live.now]
    if cooling:
        return "resting" if any(each.scope is Scope.PROVIDER for each in cooling) else "cooling"
    if cooldowns:
        return "probing"
    full = in_flight["limit"] is not None and (in_flight["now"] or 0) >= in_flight["limit"]
    return "full" if full or next_start else "ready"
