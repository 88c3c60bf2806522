"""`understudy webhooks`: endpoints, the secret of callback URLs, the delivery log, replays."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape

from understudy.models.config.settings import Settings
from understudy.models.objects.webhook import delivery_object, endpoint_object
from understudy.models.store import Store
from understudy.models.tenants import DEFAULT_TENANT
from understudy.models.webhook_events import DEAD, DELIVERED, EVENTS, PATTERNS, PENDING
from understudy.models.webhook_receivers import RefusedReceiver, check_receiver
from understudy.models.webhook_signing import SECRET_READ, callback_owner
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options
from understudy.producer.cli.errors import Refused
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.number_format import counted
from understudy.producer.status import printing as show
from understudy.producer.terminal import say

app = options.Commands()
webhooks = options.Commands(
    no_args_is_help=True, help="Manage webhook endpoints and their secrets; show and replay deliveries."
)
endpoints = options.Commands(no_args_is_help=True, help="The webhook endpoints of a tenant.")
app.add_typer(webhooks, name="webhooks")
webhooks.add_typer(endpoints, name="endpoints")


class DeliveryState(StrEnum):
    PENDING = PENDING
    DELIVERED = DELIVERED
    DEAD = DEAD


Tenant = Annotated[str, typer.Option("--tenant", help="Tenant of the webhooks.")]
EndpointId = Annotated[str, typer.Argument(metavar="ID", help="Id of an endpoint, see `webhooks endpoints list`.")]


@endpoints.command("list")
def list_endpoints(
    tenant: Tenant = DEFAULT_TENANT,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """List a tenant's endpoints. With --json, one line per endpoint."""
    rows = installation.on_ledger(lambda _, store: store.webhooks.endpoints(tenant), create=True)
    nothing = "There are no endpoints; `understudy webhooks endpoints add URL` adds one."
    show.print_rows(rows, as_json, endpoint_object, _print_endpoints, nothing)


def _print_endpoints(rows: Sequence[Mapping[str, Any]]) -> None:
    table = show.new_table("id", "URL", "events", "metadata", "state")
    for row in rows:
        match = ", ".join(f"{name}={value}" for name, value in (row["match"] or {}).items())
        state = f"[red]{escape(row['disabled'])}[/red]" if row["disabled"] else "enabled"
        table.add_row(row["id"], escape(row["url"]), ", ".join(row["events"]), escape(match) or "–", state)
    show.page().print(table)


@endpoints.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to send the events.")],
    event: Annotated[
        list[str] | None, typer.Option("--event", help="Event such as job.failed or batch.*; repeatable; default: all.")
    ] = None,
    match: Annotated[
        list[str] | None, typer.Option("--match", help="KEY=VALUE that the metadata must contain; repeatable.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Add an endpoint and print its signing secret, which is shown only once."""
    events = event or ["*"]

    async def work(settings: Settings, store: Store) -> tuple[dict[str, Any], str]:
        _check(settings, url, events)
        return await store.webhooks.add_endpoint(tenant, url, events, _pairs(match or []), actor=command_line())

    row, secret = installation.on_ledger(work, create=True)
    _print_secret(secret, {**endpoint_object(row), "secret": secret}, as_json)
    say(f"endpoint {row['id']} of tenant '{tenant}'; its secret is not shown again")


@endpoints.command()
def remove(endpoint_id: EndpointId, tenant: Tenant = DEFAULT_TENANT, installation: Installation = HERE) -> None:
    """Remove an endpoint and drop its pending deliveries."""

    async def work(_: Settings, store: Store) -> None:
        _found(await store.webhooks.remove_endpoint(tenant, endpoint_id, actor=command_line()), endpoint_id)
        say(f"endpoint {endpoint_id} is removed")

    installation.on_ledger(work, create=True)


@endpoints.command()
def enable(endpoint_id: EndpointId, tenant: Tenant = DEFAULT_TENANT, installation: Installation = HERE) -> None:
    """Enable a disabled endpoint again; `understudy webhooks replay --dead` sends what it missed."""

    async def work(_: Settings, store: Store) -> None:
        _found(await store.webhooks.enable_endpoint(tenant, endpoint_id, actor=command_line()), endpoint_id)
        say(f"endpoint {endpoint_id} is enabled")

    installation.on_ledger(work, create=True)


@endpoints.command()
def rotate(
    endpoint_id: EndpointId,
    tenant: Tenant = DEFAULT_TENANT,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Create a new signing secret and print it, only once. For 24 hours, the old one signs as well."""

    async def work(_: Settings, store: Store) -> str:
        _found(await store.webhooks.endpoint(tenant, endpoint_id) is not None, endpoint_id)
        return await store.webhooks.rotate_secret(tenant, endpoint_id, actor=command_line())

    secret = installation.on_ledger(work, create=True)
    _print_secret(secret, {"id": endpoint_id, "secret": secret}, as_json)


@webhooks.command()
def secret(
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Create a new one; for 24 hours, the old one signs as well.")
    ] = False,
    tenant: Tenant = DEFAULT_TENANT,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Print the secret that signs webhooks to the callback URLs of a tenant's jobs and batches."""
    owner = callback_owner(tenant)

    async def work(_: Settings, store: Store) -> str:
        if rotate:
            return await store.webhooks.rotate_secret(tenant, owner, actor=command_line())
        await store.audit.record_repeated(command_line(), tenant, SECRET_READ, owner)
        return (await store.webhooks.signing_secrets(owner))[0]

    found = installation.on_ledger(work, create=True)
    _print_secret(found, {"tenant": tenant, "secret": found}, as_json)


@webhooks.command()
def deliveries(
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Only to this endpoint.")] = None,
    state: Annotated[DeliveryState | None, typer.Option("--state", help="Only in this state.")] = None,
    of: Annotated[str | None, typer.Option("--of", help="Only about this job or batch.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show the newest N.")] = 50,
    tenant: Tenant = DEFAULT_TENANT,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Show past and pending deliveries, newest first. With --json, one line per delivery, with every attempt."""

    async def work(_: Settings, store: Store) -> list[dict[str, Any]]:
        return await store.webhooks.deliveries(tenant, endpoint_id=endpoint, state=state, object_id=of, limit=limit)

    rows = installation.on_ledger(work, create=True)
    show.print_rows(rows, as_json, delivery_object, _print_deliveries, "There are no deliveries.")


@webhooks.command()
def replay(
    delivery_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of one delivery.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All deliveries that were given up.")] = False,
    since: Annotated[str | None, typer.Option("--since", help="With --dead: only the last 6h, 3d, …")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    installation: Installation = HERE,
) -> None:
    """Send deliveries now, or send them again, with their original ids."""
    if (delivery_id is None) is not dead:
        raise typer.BadParameter("give the ID of a delivery, or --dead")
    if since is not None and not dead:
        raise typer.BadParameter("--since requires --dead")
    last_s = None if since is None else options.duration_s(since)

    async def work(_: Settings, store: Store) -> None:
        if delivery_id is not None:
            await _replay_one(store, tenant, delivery_id)
            return
        begin = 0.0 if last_s is None else await store.now() - last_s
        replayed = await store.webhooks.replay_dead(tenant, begin, actor=command_line())
        say(f"{counted(replayed, 'delivery is', 'deliveries are')} now due")

    installation.on_ledger(work, create=True)


async def _replay_one(store: Store, tenant: str, delivery_id: str) -> None:
    if await store.webhooks.replay(tenant, delivery_id, actor=command_line()):
        say(f"{delivery_id} is now due")
        return
    if await store.webhooks.delivery(tenant, delivery_id) is None:
        raise Refused(f"tenant '{tenant}' has no delivery {delivery_id}; `understudy webhooks deliveries` lists them")
    raise Refused("its endpoint is disabled or removed; enable it first with `understudy webhooks endpoints enable`")


def _print_deliveries(rows: Sequence[Mapping[str, Any]]) -> None:
    now = time.time()
    table = show.new_table("id", "created", "event", "object", "to", "state", "attempts", "last answer")
    for row in rows:
        due_s = max(0.0, row["next_at"] - now)
        state = f"due in {due_s:.0f} s" if row["state"] == PENDING else row["state"]
        table.add_row(
            row["id"],
            datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
            row["event"],
            row["object_id"],
            row["endpoint_id"] or escape(row["url"]),
            f"[red]{state}[/red]" if row["state"] == DEAD else state,
            str(row["tries"]),
            escape(row["last_error"] or str(row["last_status"] or "–")),
        )
    show.page().print(table)


def _print_secret(secret: str, document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(document)
    else:
        sys.stdout.write(f"{secret}\n")


def _check(settings: Settings, url: str, events: Sequence[str]) -> None:
    try:
        check_receiver(url, settings.webhooks)
    except RefusedReceiver as error:
        raise Refused(f"the URL {error}") from None
    for event in events:
        if event not in (*EVENTS, *PATTERNS):
            raise Refused(f"unknown event {event[:80]}; known events: {', '.join((*PATTERNS, *EVENTS))}")


def _pairs(given: Sequence[str]) -> dict[str, str] | None:
    pairs = [each.partition("=") for each in given]
    if any(not name or not equals for name, equals, _ in pairs):
        raise Refused("--match must have the form KEY=VALUE")
    return {name: value for name, _, value in pairs} or None


def _found(done: bool, endpoint_id: str) -> None:
    if not done:
        raise Refused(f"there is no endpoint {endpoint_id}; `understudy webhooks endpoints list` lists them")
