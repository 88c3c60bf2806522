"""The commands about providers: what is configured, and what is set aside."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from models.catalog import ResolvedProvider, resolve_provider
from models.failure import FailureClass
from models.secrets import SecretMissing, Secrets, fingerprint
from models.setaside import ALL_MODELS, SetAside
from models.settings import Settings
from models.store import LEDGER_FILE, Store
from producer import cli, show
from producer.ledger import open_ledger

app = typer.Typer()
providers = typer.Typer(invoke_without_command=True)
app.add_typer(providers, name="providers")

NOTHING_CONFIGURED = "no provider is configured; set OPENAI_API_KEY or another key, or write understudy.toml"
NO_KEY = "none"
"""What workers call the credential of a server that asks for none."""

ProviderName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a configured provider.")]


@providers.callback()
def list_providers(
    context: typer.Context, config: cli.Config = None, data: cli.Data = None, as_json: cli.AsJson = False
) -> None:
    """Each provider and key: protocol, address, limits, and since when and why it is set aside.

    A key is set aside when it was refused for a reason that only a person can mend. `understudy providers enable`
    lets it be used again, and so does a changed secret. With --json, one line per key.
    """
    if context.invoked_subcommand is not None:
        return
    with cli.plain_errors():
        settings = cli.settings_from(config, data)
        rows = _provider_rows(settings, asyncio.run(_set_aside(settings)))
        if not rows:
            cli.say(
                "No provider is configured; set OPENAI_API_KEY or another provider's key, or write understudy.toml."
            )
        if as_json:
            for row in rows:
                show.print_json(row)
        elif rows:
            show.page().print(_providers_table(rows))


async def _set_aside(settings: Settings) -> list[SetAside]:
    """A ledger that is not there yet has set nothing aside."""
    if settings.database_url is None and not (settings.data / LEDGER_FILE).exists():
        return []
    async with open_ledger(settings) as store:
        return await store.set_aside_list()


def _provider_rows(settings: Settings, aside: Sequence[SetAside]) -> list[dict[str, Any]]:
    rows = []
    for name in settings.providers:
        provider = resolve_provider(settings, name)
        keys: list[str | None] = [key.name for key in provider.api_keys]
        for key in keys or [None if provider.needs_key else NO_KEY]:
            rows.append(_provider_row(provider, key, [row for row in aside if (row.provider, row.key) == (name, key)]))
    return rows


def _provider_row(provider: ResolvedProvider, key: str | None, aside: Sequence[SetAside]) -> dict[str, Any]:
    configured = provider.settings
    return {
        "provider": provider.name,
        "key": key,
        "protocol": provider.kind,
        "base_url": provider.base_url,
        "requests_per_minute": configured.requests_per_minute,
        "tokens_per_minute": configured.tokens_per_minute,
        "max_in_flight": configured.max_in_flight,
        "limits": [limit.model_dump(exclude_none=True) for limit in configured.limits],
        "set_aside": [
            {
                "model": row.model or None,
                "failure": row.failure,
                "reason": row.reason,
                "since": row.since,
                "probe_at": row.probe_at,
            }
            for row in aside
        ],
    }


def _providers_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = show.new_table("provider", "key", "protocol", "base URL", "limits", "state")
    now = time.time()
    for row in rows:
        state = "; ".join(_set_aside_text(each, now) for each in row["set_aside"])
        lacks = "[red]has no key[/red]" if row["key"] is None else "in use"
        limits = show.limits_text(row) + (f" (+{len(row['limits'])} overrides)" if row["limits"] else "")
        table.add_row(
            *(escape(text) for text in (row["provider"], row["key"] or "–", row["protocol"], row["base_url"], limits)),
            state or lacks,
        )
    return table


def _set_aside_text(row: Mapping[str, Any], now: float) -> str:
    model = f" for {escape(row['model'])}" if row["model"] else ""
    return f"[red]set aside[/red]{model} {show.ago(row['since'], now)}: {escape(row['reason'])}"


@providers.command()
def enable(
    name: ProviderName,
    key: Annotated[str | None, typer.Option("--key", help="Name of one key; default: all of the provider.")] = None,
    config: cli.Config = None,
    data: cli.Data = None,
) -> None:
    """Let a provider's key (or all of them) be used again. Workers notice within seconds."""

    async def work(settings: Settings, store: Store) -> None:
        _check_key(resolve_provider(settings, name), key)
        count = await store.enable(name, key)
        cli.say(f"{count} records of {name} are lifted" if count else f"nothing of {name} was set aside")

    cli.on_ledger(config, data, work)


@providers.command()
def disable(
    name: ProviderName,
    key: Annotated[str, typer.Option("--key", help="Name of the key.")],
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever asks why it is not used.")],
    config: cli.Config = None,
    data: cli.Data = None,
) -> None:
    """Set a key aside by hand, until `enable` or until its secret changes. Calls in flight go on."""

    async def work(settings: Settings, store: Store) -> None:
        provider = resolve_provider(settings, name)
        _check_key(provider, key)
        seen = await _fingerprint(provider, key)
        await store.set_aside(name, key, ALL_MODELS, FailureClass.CREDENTIAL, f"by hand: {reason}", seen)
        cli.say(f"key '{key}' of {name} is set aside; `understudy providers enable {name} --key {key}` lifts that")

    cli.on_ledger(config, data, work)


def _check_key(provider: ResolvedProvider, key: str | None) -> None:
    known = [each.name for each in provider.api_keys] or [NO_KEY]
    if key is not None and key not in known:
        raise cli.Refused(f"provider '{provider.name}' has no key '{key}'; it has {', '.join(known)}")


async def _fingerprint(provider: ResolvedProvider, key: str) -> str:
    """Of today's secret: with another one, workers use the key again."""
    for each in provider.api_keys:
        if each.name == key:
            try:
                return fingerprint(await Secrets().resolve(provider.name, each))
            except SecretMissing:
                break
    return ""
