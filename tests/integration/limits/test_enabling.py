"""`understudy providers enable` clears everything that blocks a provider, and says what it cleared."""

import pytest
from redis.asyncio import Redis

from understudy.models.config.catalog import resolve_provider
from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass, Scope
from understudy.models.limits.state import read_limits
from understudy.models.store import Store
from understudy.producer.cli.commands.providers import enable_provider
from understudy.worker.failures import LimitSignals
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant
from understudy.worker.limits.limiter import Limiter

KEYS = [{"name": "main", "value": "env.X"}, {"name": "spare", "value": "env.Y"}]
MAIN = Deployment("slow", "m", "main", "slow:main")


async def enabled(store: Store, url: str, key: str | None = None) -> str:
    section = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_keys": KEYS}
    settings = Settings.model_validate({"redis_url": url, "providers": {"slow": section}})
    return await enable_provider(settings, store, resolve_provider(settings, "slow"), key)


async def test_keys_cooldowns_breakers_and_learned_rates_are_all_let_go(store: Store, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as connection:
        limiter = Limiter(Leases(connection, "w1"))
        for key, model in (("main", ""), ("main", "m"), ("spare", "")):
            await store.credentials.set_aside("slow", key, model, FailureClass.CREDENTIAL, "401")
        await limiter.advertised(MAIN, LimitSignals(requests_limit=6_000.0))
        for hint_s in None, 3_600.0:
            grant = await limiter.reserve([Candidate(MAIN)], 1)
            assert isinstance(grant, Grant)
            await limiter.release(grant, None, refused=True)
            await limiter.refused(grant, Scope.MODEL, hint_s, "rate_limit")
        learned = (await read_limits(connection)).of(MAIN.account, MAIN.model).requests.learned
        assert learned is not None
        await limiter.cool(MAIN, Scope.PROVIDER, 3_600.0, "overloaded")
        said = await enabled(store, redis_url)
        assert said == "Re-enabled 2 keys of slow; cleared 3 records of its cooldowns and learned limits."
        assert await store.credentials.listed() == []
        assert isinstance(await limiter.reserve([Candidate(MAIN)], 1), Grant)


async def test_one_key_is_let_go_alone(store: Store, redis_url: str) -> None:
    for key in ("main", "spare"):
        await store.credentials.set_aside("slow", key, "", FailureClass.CREDENTIAL, "401")
    said = await enabled(store, redis_url, "main")
    assert said == "Re-enabled 1 key of slow; it had no cooldowns and no learned limits."
    assert [row.key for row in await store.credentials.listed()] == ["spare"]


@pytest.mark.parametrize("aside", [True, False])
async def test_keys_can_be_enabled_while_redis_is_unreachable(store: Store, aside: bool) -> None:
    if aside:
        await store.credentials.set_aside("slow", "main", "", FailureClass.CREDENTIAL, "401")
    said = await enabled(store, "redis://127.0.0.1:1/0")
    assert said.startswith("Re-enabled 1 key of slow; its" if aside else "No key of slow was disabled; its")
    assert "127.0.0.1:1" in said
    assert await store.credentials.listed() == []
