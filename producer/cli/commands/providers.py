"""`understudy providers`: show the configured providers; enable and disable their keys."""

import asyncio
from typing import Annotated

import typer

from understudy.models.config.catalog import NO_KEY, ResolvedProvider, account_of, keys_of, resolve_provider
from understudy.models.config.secrets import SecretMissing, Secrets, fingerprint
from understudy.models.config.settings import Settings
from understudy.models.disabled import ALL_MODELS, BY_HAND
from understudy.models.failure import FailureClass
from understudy.models.limits.state import clear_limits
from understudy.models.objects.provider import ProviderObject
from understudy.models.queue.redis_check import QueueUnavailable, connected
from understudy.models.store import LEDGER_FILE, Store
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options
from understudy.producer.cli.errors import Refused, plain_errors
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.ledger import open_ledger
from understudy.producer.number_format import counted
from understudy.producer.queue_access import queue_url
from understudy.producer.status import printing as show
from understudy.producer.status.provider_state import LedgerPart, provider_documents, read_ledger, read_live
from understudy.producer.status.providers_table import print_providers
from understudy.producer.terminal import say

app = options.Commands()
providers = options.Commands(invoke_without_command=True)
app.add_typer(providers, name="providers")

NOTHING_CONFIGURED = "no provider is configured; set OPENAI_API_KEY or another provider's key, or write understudy.toml"

ProviderName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a configured provider.")]


@providers.callback()
def list_providers(context: typer.Context, installation: Installation = HERE, as_json: options.AsJson = False) -> None:
    """Show each provider, key and model in use: limits, usage, what it waits for, and why it is disabled.

    A limit is *configured*, *advertised* in the provider's headers, *learned* from its refusals, or *unknown* so far.
    Calls in flight are counted across all workers. A key is disabled when the provider rejects it for a reason that
    only a person can fix; `understudy providers enable` or a changed secret puts it back in use. With --json, one line
    per provider, key and model.
    """
    if context.invoked_subcommand is not None:
        return
    with plain_errors():
        settings = installation.settings()
        rows, missing = asyncio.run(_seen(settings))
        if not rows:
            say("No provider is configured; set OPENAI_API_KEY or another provider's key, or write understudy.toml.")
        elif missing:
            say(f"Current limits, calls in flight and cooldowns are unavailable: {missing}.")
        if as_json:
            for row in rows:
                show.print_json(row)
        elif rows:
            print_providers(rows)


async def _seen(settings: Settings) -> tuple[list[ProviderObject], str | None]:
    """A document per provider, key and model, and the reason why the live part from Redis is missing, if it is.

    Without a ledger, usage is zero.
    """
    ledger = LedgerPart()
    if settings.database_url is not None or (settings.data / LEDGER_FILE).exists():
        async with open_ledger(settings) as store:
            ledger = await read_ledger(store)
    live, missing = None, None
    url = queue_url(settings)
    try:
        if url is not None:
            async with connected(url) as connection:
                live = await read_live(connection, settings, ledger)
    except QueueUnavailable as error:
        missing = str(error)
    if live is None and settings.redis_url is None:
        missing = f"no `understudy up`, `run` or `worker` is running in {settings.data}"
    return provider_documents(settings, ledger, live), missing


@providers.command()
def enable(
    name: ProviderName,
    key: Annotated[
        str | None, typer.Option("--key", help="Name of one key; default: all keys of the provider.")
    ] = None,
    installation: Installation = HERE,
) -> None:
    """Put a provider's key, or all of its keys, back in use: clear disabled keys and models, cooldowns, the breaker and
    learned rates. Workers notice within seconds."""

    async def work(settings: Settings, store: Store) -> None:
        provider = resolve_provider(settings, name)
        _check_key(provider, key)
        aside = [each for each in await store.credentials.listed() if each.provider == name and key in (None, each.key)]
        said = await enable_provider(settings, store, provider, key)
        old = {"disabled": [f"{each.key}/{each.model}: {each.failure}" for each in aside]}
        await store.audit.record(command_line(), "", "provider.enable", _subject(name, key), old, {"disabled": []})
        say(said)

    installation.on_ledger(work)


@providers.command()
def disable(
    name: ProviderName,
    key: Annotated[str, typer.Option("--key", help="Name of the key.")],
    reason: Annotated[str, typer.Option("--reason", help="Shown as the reason why the key is disabled.")],
    installation: Installation = HERE,
) -> None:
    """Disable a key until `enable` or until its secret changes. Calls in flight continue."""

    async def work(settings: Settings, store: Store) -> None:
        provider = resolve_provider(settings, name)
        _check_key(provider, key)
        seen = await _fingerprint(provider, key)
        await store.credentials.set_aside(name, key, ALL_MODELS, FailureClass.CREDENTIAL, f"{BY_HAND}{reason}", seen)
        await store.audit.record(command_line(), "", "provider.disable", _subject(name, key), None, {"reason": reason})
        say(f"key '{key}' of {name} is disabled; `understudy providers enable {name} --key {key}` enables it again")

    installation.on_ledger(work)


def _subject(provider: str, key: str | None) -> str:
    return provider if key is None else f"{provider}:{key}"


def _check_key(provider: ResolvedProvider, key: str | None) -> None:
    known = [each.name for each in provider.api_keys] or [NO_KEY.name]
    if key is not None and key not in known:
        raise Refused(f"provider '{provider.name}' has no key '{key}'; it has {', '.join(known)}")


async def _fingerprint(provider: ResolvedProvider, key: str) -> str:
    """Fingerprint of the current secret: once it changes, workers use the key again."""
    for each in provider.api_keys:
        if each.name == key:
            try:
                return fingerprint(await Secrets().resolve(provider.name, each))
            except SecretMissing:
                break
    return ""


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
    url = queue_url(settings)
    if url is None:
        return None
    named = next((each for each in keys_of(provider) if each.name == key), None)
    account = account_of(provider.name, named) if named is not None else None
    async with connected(url) as connection:
        return await clear_limits(connection, provider.name, account)
