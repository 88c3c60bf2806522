"""The connections of a client: the ledger, and Redis if configured."""

import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from redis.asyncio import Redis

from understudy.models.config.settings import Settings, load_settings
from understudy.models.store import Store
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.ledger import open_ledger

REDIS_TIMEOUT_S = 2.0

NOT_OPEN = "the client is not open: use it in a `with` block, or call open() first and close() at the end"


class Connection:
    """Connections opened and closed once for many calls."""

    def __init__(
        self,
        config: Path | str | None = None,
        data: Path | str | None = None,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        settings: Settings | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """Uses the same installation as `understudy` commands with the same --config and --data: by default
        understudy.toml in the working folder, and the environment. URLs override both; `settings` replaces all of it.

        Nothing is opened or read before `async with` or `open`. A missing SQLite ledger is created. Without Redis, jobs
        are only written to the ledger, where a worker on this data folder finds them.
        """
        self._given = settings
        self._config = None if config is None else Path(config)
        self._data = None if data is None else Path(data)
        self._urls = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        self._tenant = tenant
        self._settings_now: Settings | None = settings
        self._store_now: Store | None = None
        self._redis: Redis | None = None
        self._stack = AsyncExitStack()

    @classmethod
    def on(cls, settings: Settings, store: Store, redis: Redis | None = None, tenant: str = DEFAULT_TENANT) -> Self:
        """A client on an open ledger, which stays open when the client is closed."""
        client = cls(settings=settings, tenant=tenant)
        client._store_now, client._redis = store, redis
        return client

    async def open(self) -> Self:
        """Open a client without `async with`; call `close` at the end. Raises SettingsError, StoreError."""
        said = {name: url for name, url in self._urls.items() if url is not None}
        settings = self._given or load_settings(self._config, {**os.environ, **said}, self._data)
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_ledger(settings, create=True))
            if settings.redis_url is not None:
                self._redis = await stack.enter_async_context(_redis(settings.redis_url))
            self._settings_now, self._store_now = settings, store
            self._stack = stack.pop_all()
        return self

    async def close(self) -> None:
        """Close the client. Closing again has no effect."""
        self._store_now = None
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _store(self) -> Store:
        if self._store_now is None:
            raise RuntimeError(NOT_OPEN)
        return self._store_now

    @property
    def _settings(self) -> Settings:
        if self._settings_now is None:
            raise RuntimeError(NOT_OPEN)
        return self._settings_now


def _redis(url: str) -> Redis:
    return Redis.from_url(url, socket_connect_timeout=REDIS_TIMEOUT_S, socket_timeout=REDIS_TIMEOUT_S)
