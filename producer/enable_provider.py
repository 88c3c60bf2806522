"""Puts a provider back in use: removes everything that blocks its next call, in the ledger and in Redis."""

import redis.asyncio
from redis.exceptions import RedisError

from understudy.models.config.catalog import ResolvedProvider, account_of, keys_of
from understudy.models.config.settings import Settings
from understudy.models.limits.clearing import clear_limits
from understudy.models.queue.redis_check import CONNECT_TIMEOUT_S, QueueUnavailable, unavailable
from understudy.models.store import Store
from understudy.producer.processes.embedded_address import running_redis
from understudy.producer.status.cost_text import counted


async def enable_provider(settings: Settings, store: Store, provider: ResolvedProvider, key: str | None) -> str:
    """Enable a provider's key, or all of its keys (None). Returns a sentence on what was done."""
    keys = len(set(await store.credentials.enable(provider.name, key)))
    said = (
        f"Re-enabled {counted(keys, 'key')} of {provider.name}" if keys else f"No key of {provider.name} was disabled"
    )
    try:
        records = await _forget_limits(settings, provider, key)
    except QueueUnavailable as missing:
        return f"{said}; its cooldowns and learned limits are unchanged: {missing}."
    if records is None:
        return f"{said}; nothing is running in {settings.data}, so no limits were checked."
    if records:
        return f"{said}; cleared {counted(records, 'record')} of its cooldowns and learned limits."
    return f"{said}; it had no cooldowns and no learned limits."


async def _forget_limits(settings: Settings, provider: ResolvedProvider, key: str | None) -> int | None:
    """The number of cleared records. None: no queue is running. Raises QueueUnavailable."""
    url = settings.redis_url or running_redis(settings.data)
    if url is None:
        return None
    named = next((each for each in keys_of(provider) if each.name == key), None)
    account = account_of(provider.name, named) if named is not None else None
    try:
        async with redis.asyncio.Redis.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=CONNECT_TIMEOUT_S
        ) as connection:
            return await clear_limits(connection, provider.name, account)
    except (RedisError, OSError, ValueError) as error:
        raise unavailable(url, error) from None
