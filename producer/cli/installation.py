"""Where a command works: the installation that its options name, its settings and its ledger."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from understudy.models.config.settings import Settings, load_settings
from understudy.models.store import Store
from understudy.producer.cli.errors import plain_errors
from understudy.producer.found_config import warnings_about
from understudy.producer.ledger import open_ledger
from understudy.producer.terminal import say

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Installation:
    """The options --config and --data, which every command has."""

    config: Annotated[
        Path | None,
        typer.Option("--config", help="Configuration file; default: understudy.toml in this folder, if present."),
    ] = None
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder for the queue and the ledger; default .understudy.")
    ] = None

    def settings(self) -> Settings:
        """The configuration, overridden by the options. Raises SettingsError."""
        return load_settings(self.config, os.environ, self.data)

    def settings_for_calls(self) -> Settings:
        """For a command that calls providers: first print warnings about a configuration found in this folder."""
        settings = self.settings()
        for sentence in warnings_about(settings, self.config, os.environ):
            say(sentence)
        return settings

    def on_ledger(self, work: Callable[[Settings, Store], Awaitable[T]], *, create: bool = False) -> T:
        """Run a command's work on the ledger. `create`: create the ledger if it does not exist."""

        async def opened(settings: Settings) -> T:
            async with open_ledger(settings, create=create) as store:
                return await work(settings, store)

        with plain_errors():
            return asyncio.run(opened(self.settings()))


HERE = Installation()
"""Without options: the installation of this folder."""


def with_options(settings: Settings, section: str, **given: object) -> Settings:
    """The settings, of one section with the values of the options that were given (not None)."""
    changed = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=changed)})
