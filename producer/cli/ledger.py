"""Runs a command's work on the ledger."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from understudy.models.config.settings import Settings
from understudy.models.store import Store
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.settings import settings_from
from understudy.producer.ledger import open_ledger

T = TypeVar("T")


def on_ledger(
    config: Path | None,
    data: Path | None,
    work: Callable[[Settings, Store], Awaitable[T]],
    *,
    create: bool = False,
) -> T:
    """Run a command's work on the ledger given by its options. `create`: create the ledger if it does not exist."""

    async def opened(settings: Settings) -> T:
        async with open_ledger(settings, create=create) as store:
            return await work(settings, store)

    with plain_errors():
        return asyncio.run(opened(settings_from(config, data)))
