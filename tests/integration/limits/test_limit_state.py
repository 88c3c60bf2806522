"""The limits that people see are those that the limiter uses: it writes to a real Redis, and its state is read back."""

from dataclasses import replace

import pytest
import redis.asyncio

from understudy.models.config.provider_settings import Limits
from understudy.models.config.settings import Settings
from understudy.models.failure import Scope
from understudy.models.limits.state import AccountState, DayUse, Limit, LimitState, Source, end_of_day, read_limits
from understudy.models.queue import keys
from understudy.producer.status.provider_state import LedgerPart, provider_documents
from understudy.worker.failures import LimitSignals
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Refusal
from understudy.worker.limits.limiter import Limiter

DEPLOYMENT = Deployment("alpha", "vendor/large:free", "main", "alpha:team")
UNKNOWN = Candidate(DEPLOYMENT)
NAME = (DEPLOYMENT.account, DEPLOYMENT.model)
KEPT_TO_S = 0.001
"""Moments are kept in whole milliseconds."""

HEADERS = LimitSignals(requests_limit=600, requests_remaining=600, requests_reset_s=60, tokens_limit=90_000)


async def granted(limiter: Limiter, candidate: Candidate = UNKNOWN) -> Grant:
    reply = await limiter.reserve([candidate], 100)
    assert isinstance(reply, Grant)
    return reply


async def seen(connection: redis.asyncio.Redis) -> tuple[LimitState, AccountState]:
    """As it is found in Redis, without asking for it by name."""
    state = await read_limits(connection)
    return state, state.of(*NAME)


async def promised_per_minute(limiter: Limiter, candidate: Candidate) -> float:
    """The rate that the limiter itself uses: the difference between two horizons."""
    (near,), (far,) = [await limiter.outlook([candidate], horizon_s) for horizon_s in (10.0, 70.0)]
    return far.starts - near.starts


async def test_calls_in_flight_are_counted_over_the_fleet(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    first = await granted(limiter)
    await granted(Limiter(Leases(connection, "w2")))
    _, account = await seen(connection)
    assert account.in_flight == 2
    await limiter.release(first, 100)
    _, account = await seen(connection)
    assert account.in_flight == 1


async def test_while_the_first_calls_find_out_what_is_taken_fewer_may_be_in_flight(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    limiter.scripts.now_ms = (await read_limits(connection)).now * 1000
    grants = 0
    while isinstance(await limiter.reserve([UNKNOWN], 100), Grant):
        grants += 1
    _, account = await seen(connection)
    assert account.most_in_flight(None) == account.most_in_flight(200) == Limit(float(grants), Source.LEARNED)
    assert account.in_flight == grants and account.most_in_flight(1) == Limit(1, Source.CONFIGURED)
    await limiter.advertised(DEPLOYMENT, HEADERS)
    _, account = await seen(connection)
    assert account.most_in_flight(None) == Limit(None, Source.UNKNOWN)
    assert account.most_in_flight(200) == Limit(200, Source.CONFIGURED)


async def test_a_dead_workers_calls_are_none(connection: redis.asyncio.Redis) -> None:
    await granted(Limiter(Leases(connection, "w1", 0.3)))
    state = await read_limits(connection)
    while state.of(*NAME).in_flight:
        state = await read_limits(connection)
    assert await connection.hlen(keys.flight(*NAME)) == 1


async def test_a_configured_limit_is_the_limit_until_refusals_teach_a_lower_one(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    configured = Candidate(DEPLOYMENT, requests_per_minute=600)
    grant = await granted(limiter, configured)
    _, account = await seen(connection)
    assert account.requests.limit(600) == Limit(600.0, Source.CONFIGURED)
    assert account.requests.limit(None) == Limit(None, Source.UNKNOWN)
    await limiter.release(grant, None, refused=True)
    assert await limiter.refused(grant, Scope.MODEL, None, "rate_limit") is None
    _, account = await seen(connection)
    learned = account.requests.limit(600)
    assert learned.source is Source.LEARNED
    assert learned.amount is not None and learned.amount < 594


@pytest.mark.parametrize("later_s", [0.5, 20.0, 45.0])
async def test_a_learned_rate_is_shown_as_it_has_grown(
    limiter: Limiter, connection: redis.asyncio.Redis, later_s: float
) -> None:
    """Each by its own clock: the limiter's is moved forward, and so is the state written for the reader."""
    grants = [await granted(limiter, Candidate(DEPLOYMENT, requests_per_minute=60_000)) for _ in range(240)]
    for answered in grants[:200]:
        await limiter.release(answered, 100)
    end = None
    for refused in grants[200:]:
        await limiter.release(refused, None, refused=True)
        end = await limiter.refused(refused, Scope.MODEL, None, "rate_limit")
    assert end is not None
    limiter.scripts.now_ms = (end + later_s) * 1000
    state, _ = await seen(connection)
    key = keys.rate(*NAME)
    age_ms = limiter.scripts.now_ms - float(await connection.hget(key, "learned_at") or 0)
    promised = await promised_per_minute(limiter, UNKNOWN)
    await connection.hset(key, "learned_at", str(state.now * 1000 - age_ms))
    _, account = await seen(connection)
    shown = account.requests.limit(None)
    assert shown.source is Source.LEARNED
    assert shown.amount == pytest.approx(promised, rel=0.02, abs=2)


async def test_what_headers_tell_is_the_limit_where_none_is_configured(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    await limiter.advertised(DEPLOYMENT, HEADERS)
    _, account = await seen(connection)
    assert account.requests.limit(None) == Limit(600.0, Source.ADVERTISED)
    assert account.tokens.limit(None) == Limit(90_000.0, Source.ADVERTISED)
    assert account.requests.limit(300) == Limit(300.0, Source.CONFIGURED)
    assert await promised_per_minute(limiter, UNKNOWN) == pytest.approx(account.requests.limit(None).pace, abs=2)


async def test_a_brake_because_others_use_the_account_says_until_when(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    await limiter.advertised(DEPLOYMENT, replace(HEADERS, requests_remaining=60.0))
    state, account = await seen(connection)
    limit = account.requests.limit(6_000)
    assert (limit.amount, limit.source) == (pytest.approx(60.0), Source.ADVERTISED)
    assert limit.until is not None and state.now < limit.until <= state.now + 5.0


async def test_the_next_start_is_when_the_limiter_lets_one_start(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    configured = Candidate(DEPLOYMENT, requests_per_minute=600)
    while isinstance(await limiter.reserve([configured], 100), Grant):
        pass
    (outlook,) = await limiter.outlook([configured], 2.0)
    state, account = await seen(connection)
    assert account.requests.next_start(600, state.now) == pytest.approx(outlook.first_at, abs=0.01)
    assert outlook.first_at > state.now
    assert account.requests.next_start(None, state.now) == state.now


async def test_the_use_of_the_day_is_shown_as_the_limiter_counts_it(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    limiter.scripts.now_ms = (await read_limits(connection)).now * 1000
    daily = Candidate(DEPLOYMENT, requests_per_minute=600_000, requests_per_day=3, tokens_per_day=9_000)
    first = await granted(limiter, daily)
    await limiter.release(first, 70)
    await limiter.cancel(await granted(limiter, daily))
    await granted(limiter, daily)
    _, account = await seen(connection)
    assert account.day == DayUse(requests=2, tokens=170)
    await granted(limiter, daily)
    refused = await limiter.reserve([daily], 100)
    state, account = await seen(connection)
    limits = Limits(requests_per_day=3)
    assert isinstance(refused, Refusal)
    assert account.day.next_start(limits, state.now) == refused.until == end_of_day(state.now)
    (row,) = provider_documents(settings_with(requests_per_day=3, tokens_per_day=9_000), LedgerPart(), state)
    assert row["requests_per_day"] == {"limit": 3, "used": 3, "until": refused.until}
    assert row["tokens_per_day"] == {"limit": 9_000, "used": 270, "until": refused.until}
    assert (row["state"], row["next_start"]) == ("full", refused.until)


def settings_with(**limits: int) -> Settings:
    """A configuration that has DEPLOYMENT with these limits."""
    key = {"name": "main", "value": "env.A", "account": "team"}
    alpha = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_keys": [key], "models": [DEPLOYMENT.model]}
    return Settings.model_validate({"providers": {"alpha": {**alpha, **limits}}})


async def test_an_unknown_limit_does_not_limit(connection: redis.asyncio.Redis) -> None:
    state = await read_limits(connection, [NAME])
    assert (dict(state.accounts), state.cooldowns) == ({}, ())
    assert state.of(*NAME).requests.limit(None) == Limit(None, Source.UNKNOWN)
    assert state.of(*NAME).requests.next_start(None, state.now) == state.now


@pytest.mark.parametrize(
    ("scope", "others"),
    [
        (Scope.MODEL, [("alpha", "alpha:team", "small"), ("alpha", "alpha:other", DEPLOYMENT.model)]),
        (Scope.ACCOUNT, [("alpha", "alpha:other", DEPLOYMENT.model)]),
        (Scope.PROVIDER, [("alpha", "alpha:team", "small"), ("beta", "beta:team", DEPLOYMENT.model)]),
    ],
)
async def test_a_cooldown_is_shown_where_it_holds(
    limiter: Limiter, connection: redis.asyncio.Redis, scope: Scope, others: list[tuple[str, str, str]]
) -> None:
    until = await limiter.cool(DEPLOYMENT, scope, 20.0, "rate_limit at alpha")
    state, _ = await seen(connection)
    (cooldown,) = state.cooldowns_of("alpha", *NAME)
    assert (cooldown.scope, cooldown.until, cooldown.reason) == (scope, until, "rate_limit at alpha")
    assert (cooldown.in_a_row, cooldown.probing) == (1, False)
    assert not any(state.cooldowns_of(*other) for other in others)
    assert isinstance(refusal := await limiter.reserve([UNKNOWN], 1), Refusal)
    assert refusal.until == until


async def test_refusals_in_a_row_are_counted_and_end_in_probes(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    for _ in range(3):
        limiter.scripts.now_ms = 1_000 * await limiter.cool(DEPLOYMENT, Scope.MODEL, None, "rate_limit") + 1
    state, _ = await seen(connection)
    (cooldown,) = state.cooldowns
    assert (cooldown.in_a_row, cooldown.probing) == (3, True)
    assert state.now - 5 < cooldown.since <= state.now + KEPT_TO_S and state.now < cooldown.until


@pytest.mark.parametrize(("scope", "for_s"), [(Scope.MODEL, None), (Scope.PROVIDER, None), (Scope.PROVIDER, 0.1)])
async def test_the_next_probe_is_when_the_limiter_lets_one_start(
    limiter: Limiter, connection: redis.asyncio.Redis, scope: Scope, for_s: float | None
) -> None:
    """In the past, by this Redis server's clock: its cooldowns have ended, and only the probes are left."""
    limiter.scripts.now_ms = (await read_limits(connection)).now * 1000 - 300_000
    for _ in range(6):
        end = await limiter.cool(DEPLOYMENT, scope, for_s, "overloaded", probed=True)
        limiter.scripts.now_ms = end * 1000 + 15_000
    await granted(limiter)
    assert isinstance(refusal := await limiter.reserve([UNKNOWN], 1), Refusal)
    state, _ = await seen(connection)
    (cooldown,) = state.cooldowns
    assert cooldown.probing and cooldown.until < state.now
    assert cooldown.next_start == pytest.approx(refusal.until, abs=0.01)


async def test_a_cooldown_that_has_ended_is_not_shown(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    until = await limiter.cool(DEPLOYMENT, Scope.MODEL, 0.05, "rate_limit")
    state = await read_limits(connection)
    while state.now <= until:
        state = await read_limits(connection)
    assert state.cooldowns == () and await connection.exists(keys.cooldown(Scope.MODEL, "alpha", *NAME))


async def test_keys_of_others_are_left_alone(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    await granted(limiter)
    await connection.set(keys.PLANNER, "w1")
    await connection.set(keys.KNOWN_SINCE, "1")
    await connection.set("understudy:rate", "of somebody else")
    state, _ = await seen(connection)
    assert set(state.accounts) == {NAME}
