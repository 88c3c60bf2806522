"""`understudy check`: validate the configuration and see whether every service answers."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from understudy.models.config.settings import ChainConfig, Settings, StepConfig
from understudy.models.errors import ALL_SUCCEEDED, UNREACHABLE, WRONG_USE
from understudy.models.queue.redis_check import check_redis, shown_url
from understudy.models.request.wire import RequestError
from understudy.models.routing.data_rules import shown
from understudy.models.routing.route import Router
from understudy.models.store.database.engine import place_of
from understudy.producer.cli import options
from understudy.producer.cli.commands.providers import NOTHING_CONFIGURED
from understudy.producer.cli.errors import Refused, plain_errors
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.ledger import open_ledger
from understudy.producer.status import printing as show
from understudy.producer.terminal import say

app = options.Commands()


@app.command()
def check(
    live: Annotated[
        bool, typer.Option("--live", help="Also request one tiny completion from each deployment; costs a little.")
    ] = False,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Validate the configuration: stores, each provider, key (masked), model, limit and price, and the chains.

    Exit code 2 if something must be fixed, 3 if a store or, with --live, a provider does not answer. With --json, one
    line per deployment; prices are in US dollars per million tokens.
    """
    with plain_errors():
        settings = installation.settings_for_calls()
        code = asyncio.run(_check(settings, installation.config, live, as_json))
    raise typer.Exit(code)


async def _check(settings: Settings, config: Path | None, live: bool, as_json: bool) -> int:
    await _check_stores(settings)
    if not settings.providers:
        raise Refused(NOTHING_CONFIGURED)
    rows = []
    async for row in _asked_of_worker(config, live):
        rows.append(row)
        if as_json:
            show.print_json(row)
    if not as_json:
        show.page().print(_check_table(rows, live))
    for line in chain_lines(settings):
        say(line)
    unpriced = [(row["provider"], row["model"]) for row in rows if row["model"] and row["input_usd"] is None]
    for provider, model in dict.fromkeys(unpriced):
        known = f"the price of {provider}/{model} is unknown: its costs are shown as unknown, and no budget allows it"
        say(f"{known}; set it in [providers.{provider}.prices]")
    problems = dict.fromkeys([*(row["problem"] for row in rows if "problem" in row), *chain_problems(settings)])
    for problem in problems:
        say(problem)
    silent = [row for row in rows if not row.get("live", {"answered": True})["answered"]]
    if problems:
        return WRONG_USE
    return UNREACHABLE if silent else ALL_SUCCEEDED


async def _check_stores(settings: Settings) -> None:
    if settings.redis_url is None:
        say(f"queue: embedded, in {settings.data}")
    else:
        for warning in await check_redis(settings.redis_url):
            say(warning)
        say(f"queue: {shown_url(settings.redis_url)}")
    if settings.database_url is None:
        say(f"ledger: SQLite, in {settings.data}")
        return
    async with open_ledger(settings):
        named_by = "DATABASE_URL" if os.environ.get("DATABASE_URL") else "database_url in the configuration"
        say(f"ledger: {place_of(settings.database_url)} (from {named_by}), schema up to date")


async def _asked_of_worker(config: Path | None, live: bool) -> AsyncIterator[dict[str, Any]]:
    """The rows that `worker.check` prints. Raises Refused with its error message."""
    command = [sys.executable, "-P", "-m", "understudy.worker.check", *(["--live"] if live else [])]
    command += ["--config", str(config)] if config is not None else []
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, limit=1 << 20)
    assert process.stdout is not None and process.stderr is not None
    complaint = asyncio.create_task(process.stderr.read())
    try:
        async for line in process.stdout:
            yield orjson.loads(line)
        if await process.wait():
            raise Refused((await complaint).decode(errors="replace").strip())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await complaint


def _check_table(rows: Sequence[Mapping[str, Any]], live: bool) -> Table:
    table = show.new_table(
        "provider", "protocol", "key", "model", "limits", "$ per M in / out", *(["live"] if live else [])
    )
    for row in rows:
        secret = f" {row['secret']}" if row.get("secret") else ""
        price = "unknown" if row["input_usd"] is None else f"{row['input_usd']:g} / {row['output_usd'] or 0:g}"
        cells = [row["provider"], row["protocol"], f"{row.get('key') or '–'}{secret}", row["model"] or "–"]
        cells += [show.limits_text(row), price if row["model"] else "–", *([_live_word(row)] if live else [])]
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _live_word(row: Mapping[str, Any]) -> str:
    if "problem" in row:
        return "skipped: no key"
    if "live" not in row:
        return "skipped: no model; name one in a chain or under `models`"
    live = row["live"]
    return (
        f"answers, {live['latency_ms'] / 1000:.2f} s" if live["answered"] else f"{live['failure']}: {live['message']}"
    )


def chain_lines(settings: Settings) -> Iterator[str]:
    """Tags by provider, then each chain in one line."""
    for name, provider in settings.providers.items():
        if provider.tags:
            yield f"provider {name}: tags {shown(provider.tags)}"
    for name, chain in settings.chains.items():
        yield f"chain {name}: {chain_text(chain)}"


def chain_text(chain: ChainConfig) -> str:
    text = ", then ".join(map(_entry_text, chain.places))
    if chain.order != "chain":
        text += f"; {chain.order} first"
    for word, tags in (("require", chain.require), ("forbid", chain.forbid)):
        text += f"; {word} {shown(tags)}" if tags else ""
    return text


def chain_problems(settings: Settings) -> Iterator[str]:
    """Chains that no request can use, such as one where every step violates the data rules."""
    for name in settings.chains:
        try:
            Router(settings).resolve({"chain": name})
        except RequestError as refused:
            yield f"chain {name}: {refused}"


def _entry_text(variants: tuple[StepConfig, ...]) -> str:
    if len(variants) == 1:
        return f"{variants[0].model} (some requests)" if variants[0].when else variants[0].model
    return " or ".join(f"{each.model} ({each.weight:g})" for each in variants)
