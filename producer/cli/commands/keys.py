"""`understudy keys`: keys of the HTTP API."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from understudy.models.api_keys import KeyRecord, Scope, new_key
from understudy.models.config.settings import Settings
from understudy.models.objects.administration import key_object
from understudy.models.store import Store
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options
from understudy.producer.cli.commands.tenants import tenant_name
from understudy.producer.cli.errors import Refused
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.status import printing as show
from understudy.producer.terminal import say

app = options.Commands()
keys = options.Commands(no_args_is_help=True, help="Create, list and revoke API keys.")
app.add_typer(keys, name="keys")

Tenant = Annotated[str, typer.Option("--tenant", callback=tenant_name, help="Tenant of the key.")]


@keys.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Name shown in lists, such as its purpose.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="Repeatable; submit includes read; default submit."),
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    expires: Annotated[
        str | None, typer.Option("--expires", help="Lifetime, such as 90d; default: never expires.")
    ] = None,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Create an API key and print it. It is shown only once: only its hash is stored.

    As soon as one key exists, the HTTP API requires a key from every caller, including those on this machine.
    """
    lifetime_s = None if expires is None else options.duration_s(expires)
    made = new_key()

    async def work(_: Settings, store: Store) -> KeyRecord:
        expires_at = None if lifetime_s is None else await store.now() + lifetime_s
        scopes = scope or [Scope.SUBMIT]
        return await store.api_keys.add(
            made, tenant=tenant, name=name, scopes=scopes, expires_at=expires_at, actor=command_line()
        )

    record = installation.on_ledger(work, create=True)
    if as_json:
        show.print_json({**key_object(record, time.time()), "key": made.text})
    else:
        sys.stdout.write(f"{made.text}\n")
    say(f"key {record.id} of tenant '{record.tenant}' ({_scopes(record)}); it is not shown again")


@keys.command("list")
def list_keys(
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Only keys of this tenant; default: all tenants.")
    ] = None,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """List all keys, without their secrets. With --json, one line per key."""
    records = installation.on_ledger(lambda _, store: store.api_keys.listed(tenant), create=True)
    nothing = "There are no keys; `understudy keys create` creates one."
    show.print_rows(records, as_json, lambda record: key_object(record, time.time()), _print_keys, nothing)


def _print_keys(records: Sequence[KeyRecord]) -> None:
    table = show.new_table("id", "tenant", "name", "scopes", "state", "created", "expires")
    for record in records:
        state = record.state(time.time())
        table.add_row(
            *(record.id, record.tenant, escape(record.name), _scopes(record)),
            state if state == "active" else f"[red]{state}[/red]",
            _day(record.created_at),
            "never" if record.expires_at is None else _day(record.expires_at),
        )
    show.page().print(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key (its middle part), see `keys list`.")],
    installation: Installation = HERE,
) -> None:
    """Revoke a key. API processes reject it within three seconds."""

    async def work(settings: Settings, store: Store) -> None:
        if await store.api_keys.revoke(key_id, actor=command_line()):
            say(f"key {key_id} is revoked")
            if not await store.api_keys.exist():
                say(
                    "That was the last key: an HTTP API that listens on loopback only, and has no public_url, "
                    "serves local callers without a key again."
                )
        elif await store.api_keys.find(key_id) is None:
            raise Refused(f"there is no key {key_id[:80]}; `understudy keys list` lists all keys")
        else:
            say(f"key {key_id} was already revoked")

    installation.on_ledger(work)


def _scopes(record: KeyRecord) -> str:
    return ", ".join(scope for scope in Scope if scope in record.scopes)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
