"""The settings of a command: the configuration, overridden by its options."""

import os
from pathlib import Path

from understudy.models.config.settings import Settings, load_settings
from understudy.producer.found_config import told_of
from understudy.producer.terminal import say


def settings_from(config: Path | None, data: Path | None) -> Settings:
    return load_settings(config, os.environ, data)


def settings_for_calls(config: Path | None, data: Path | None) -> Settings:
    """For a command that calls providers: first print warnings about a configuration file found in this folder."""
    settings = settings_from(config, data)
    for sentence in told_of(settings, config, os.environ):
        say(sentence)
    return settings


def with_concurrency(settings: Settings, max_concurrency: int | None, grace_s: float | None = None) -> Settings:
    given = {"max_concurrency": max_concurrency, "grace_s": grace_s}
    changed = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=changed)})


def with_address(settings: Settings, host: str | None, port: int | None) -> Settings:
    changed = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    return settings.model_copy(update={"api": settings.api.model_copy(update=changed)})
