"""The commands about who may do what: keys of the HTTP API, and the limits of tenants."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from models.allowing import allowed_name
from models.api_keys import KeyRecord, Scope, new_key
from models.budgets import amount
from models.chain import Tags
from models.rules import shown
from models.settings import Settings
from models.store import Store
from models.tenants import DEFAULT_TENANT, TENANT_NAME, TenantLimits
from producer import cli, show
from producer.acting import command_line
from producer.ledger import open_ledger

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys of the HTTP API.")
tenants = typer.Typer(no_args_is_help=True, help="What tenants may use, and what they used.")
app.add_typer(keys, name="keys")
app.add_typer(tenants, name="tenants")

NO_LIMIT = "none"
T = TypeVar("T")


def _tenant_name(given: str) -> str:
    if TENANT_NAME.fullmatch(given) is None:
        raise typer.BadParameter(f"{given!r} is no name; write letters, digits, '_', '-' and '.', at most 63")
    return given


def _limit(given: str | None, kind: type[int] | type[float]) -> int | float | None:
    """`none` lifts a limit."""
    if given is None or given == NO_LIMIT:
        return None
    try:
        value = kind(given.replace("_", ""))
    except ValueError:
        value = -1
    if not 0 <= value < 2**31:
        raise cli.Refused(f"'{given}' is no limit; write a number that is not negative, or none")
    return value


def _rules(word: str, pairs: list[str] | None) -> dict[str, Tags]:
    """`none` lifts them."""
    if pairs is None:
        return {}
    return {word: {} if pairs == [NO_LIMIT] else cli.tags_of(f"--{word}", pairs) or {}}


def _allow(settings: Settings, names: list[str] | None) -> dict[str, tuple[str, ...] | None]:
    """`none` lifts it."""
    if names is None:
        return {}
    if names == [NO_LIMIT]:
        return {"allow": None}
    try:
        return {"allow": tuple(dict.fromkeys(allowed_name(settings, each) for each in names))}
    except ValueError as error:
        raise cli.Refused(f"--allow: {error}") from None


Tenant = Annotated[str, typer.Option("--tenant", callback=_tenant_name, help="Whose key it is.")]
TenantName = Annotated[str, typer.Argument(metavar="NAME", callback=_tenant_name, help="Name of a tenant.")]
ANumber = "; none: no limit."
NO_RULE = "; may be given several times; none: no rule."


def _on_new_ledger(config: Path | None, data: Path | None, work: Callable[[Settings, Store], Awaitable[T]]) -> T:
    """As `cli.on_ledger`, and makes the ledger: keys come before the first job."""

    async def opened(settings: Settings) -> T:
        async with open_ledger(settings, create=True) as store:
            return await work(settings, store)

    with cli.plain_errors():
        return asyncio.run(opened(cli.settings_from(config, data)))


@keys.command()
def create(
    name: Annotated[str, typer.Option("--name", help="What it is for; shown in lists.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="May be given several times; submit reads, too; default submit."),
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    expires: Annotated[str | None, typer.Option("--expires", help="When it ends, such as 90d; default never.")] = None,
    config: cli.Config = None,
    data: cli.Data = None,
    as_json: cli.AsJson = False,
) -> None:
    """Make a key and print it, this once: only a hash of it is kept.

    From the first key on, the HTTP API asks everybody for one, also on this machine.
    """
    lifetime_s = None if expires is None else cli.duration_s(expires)
    made = new_key()

    async def work(_: Settings, store: Store) -> KeyRecord:
        expires_at = None if lifetime_s is None else await store.now() + lifetime_s
        scopes = scope or [Scope.SUBMIT]
        return await store.add_api_key(
            made, tenant=tenant, name=name, scopes=scopes, expires_at=expires_at, actor=command_line()
        )

    record = _on_new_ledger(config, data, work)
    if as_json:
        show.print_json({**_key_document(record), "key": made.text})
    else:
        sys.stdout.write(f"{made.text}\n")
    cli.say(f"key {record.id} of tenant '{record.tenant}' ({_scopes(record)}); it cannot be shown again")


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's; default all.")] = None,
    config: cli.Config = None,
    data: cli.Data = None,
    as_json: cli.AsJson = False,
) -> None:
    """Every key without its secret. With --json, one line per key."""
    records = _on_new_ledger(config, data, lambda _, store: store.api_keys(tenant))
    if as_json:
        for record in records:
            show.print_json(_key_document(record))
        return
    if not records:
        cli.say("There is no key; `understudy keys create` makes one.")
        return
    table = show.new_table("id", "tenant", "name", "scopes", "state", "made", "expires")
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
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The middle part of the key, as `keys list` shows it.")],
    config: cli.Config = None,
    data: cli.Data = None,
) -> None:
    """End a key. API processes refuse it within three seconds."""

    async def work(settings: Settings, store: Store) -> None:
        if await store.revoke_api_key(key_id, actor=command_line()):
            cli.say(f"key {key_id} is revoked")
            if not await store.has_api_keys():
                cli.say(
                    "That was the last key: an HTTP API that listens on its own machine only, and has no public_url, "
                    "serves callers there without one again."
                )
        elif await store.api_key(key_id) is None:
            raise cli.Refused(f"there is no key {key_id[:80]}; `understudy keys list` shows them")
        else:
            cli.say(f"key {key_id} was revoked before")

    cli.on_ledger(config, data, work)


class ContentWord(StrEnum):
    ALWAYS = "always"
    UNTIL_DELIVERED = "until_delivered"
    DEFAULT = "default"  # as the installation does


@tenants.command("list")
def list_tenants(config: cli.Config = None, data: cli.Data = None, as_json: cli.AsJson = False) -> None:
    """The tenants that have limits or keys, with both. With --json, one line per tenant."""

    async def work(_: Settings, store: Store) -> list[TenantLimits]:
        known = {each.name: each for each in await store.tenants()}
        for record in await store.api_keys():
            known.setdefault(record.tenant, TenantLimits(record.tenant))
        return sorted(known.values(), key=lambda each: each.name)

    found = _on_new_ledger(config, data, work)
    if as_json:
        for each in found:
            show.print_json(asdict(each))
        return
    if not found:
        cli.say(f"No tenant has a limit or a key; all belongs to '{DEFAULT_TENANT}', without limits.")
        return
    columns = (
        "jobs per minute",
        "queued jobs",
        "USD per month",
        "weight",
        "require",
        "forbid",
        "allow",
        "content kept",
    )
    table = show.new_table("tenant", *columns)
    for each in found:
        limits = (each.jobs_per_minute, each.queued_jobs, each.usd_per_month)
        rules = (shown(each.require), shown(each.forbid), _names(each.allow))
        kept = each.store_content or ContentWord.DEFAULT
        table.add_row(each.name, *(_shown(value) for value in limits), f"{each.weight:g}", *rules, kept)
    show.page().print(table)


@tenants.command("set")
def set_tenant(
    name: TenantName,
    jobs_per_minute: Annotated[
        str | None, typer.Option("--jobs-per-minute", help=f"Jobs that it may submit in a minute{ANumber}")
    ] = None,
    queued_jobs: Annotated[
        str | None, typer.Option("--queued-jobs", help=f"Jobs that it may have waiting{ANumber}")
    ] = None,
    usd_per_month: Annotated[
        str | None, typer.Option("--usd-per-month", help=f"Dollars per calendar month (UTC){ANumber}")
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            "--weight", parser=cli.weight, metavar="NUMBER", help="Turns of this tenant for one of another; usual is 1."
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="TAG=VALUE", help=f"Data rule of all its jobs, e.g. region=eu,ch{NO_RULE}"),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option("--forbid", metavar="TAG=VALUE", help=f"Data rule of all its jobs, e.g. region=us{NO_RULE}"),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME",
            help="A chain, provider/model or 'provider/*' that it may use, and no other; may be given several times; "
            "none: all.",
        ),
    ] = None,
    store_content: Annotated[
        ContentWord | None,
        typer.Option("--store-content", help="For how long its prompts and answers are kept; default: as configured."),
    ] = None,
    config: cli.Config = None,
    data: cli.Data = None,
) -> None:
    """Change a tenant's limits, weight and policy; what is not named stays.

    API processes notice within ten seconds. Data rules and what is allowed hold for what is accepted from then on. All
    of an option's values are given at once.
    """

    async def work(settings: Settings, store: Store) -> None:
        given = {
            "jobs_per_minute": (jobs_per_minute, int),
            "queued_jobs": (queued_jobs, int),
            "usd_per_month": (usd_per_month, float),
        }
        changed: dict[str, Any] = {word: _limit(text, kind) for word, (text, kind) in given.items() if text is not None}
        changed |= _rules("require", require) | _rules("forbid", forbid) | _allow(settings, allow)
        if weight is not None:
            changed["weight"] = weight
        if store_content is not None:
            changed["store_content"] = None if store_content is ContentWord.DEFAULT else str(store_content)
        if not changed:
            raise cli.Refused(
                "name one of --jobs-per-minute, --queued-jobs, --usd-per-month, --weight, --require, --forbid, "
                "--allow and --store-content"
            )
        before = (await store.tenant_use(name, time.time())).limits
        await store.set_tenant(replace(before, **changed), actor=command_line())
        cli.say(f"tenant '{name}' is changed")

    _on_new_ledger(config, data, work)


@tenants.command("show")
def show_tenant(
    name: TenantName, config: cli.Config = None, data: cli.Data = None, as_json: cli.AsJson = False
) -> None:
    """A tenant's limits, what it spent this month, and how many of its jobs wait."""

    async def work(_: Settings, store: Store) -> dict[str, Any]:
        use = await store.tenant_use(name, time.time())
        queued = (await store.queued_by_tenant()).get(name, 0)
        return {
            **asdict(use.limits),
            "queued_now": queued,
            "usd_this_month": use.usd_this_month,
            "usd_granted": use.usd_granted,
            "jobs_this_minute": use.accepted_this_minute,
        }

    seen = _on_new_ledger(config, data, work)
    if as_json:
        show.print_json(seen)
        return
    table = show.new_table("", "now", "limit")
    table.add_row("queued jobs", f"{seen['queued_now']:,}", _shown(seen["queued_jobs"]))
    granted = f" + {amount(seen['usd_granted'])} granted" if seen["usd_granted"] else ""
    most = NO_LIMIT if seen["usd_per_month"] is None else f"{amount(seen['usd_per_month'])}{granted}"
    table.add_row("USD this month", amount(seen["usd_this_month"]), most)
    table.add_row("jobs per minute", f"{seen['jobs_this_minute']:,}", _shown(seen["jobs_per_minute"]))
    table.add_row("weight", f"{seen['weight']:g}", "")
    for word in ("require", "forbid"):
        table.add_row(word, "", shown(seen[word]) or NO_LIMIT)
    table.add_row("allow", "", _names(seen["allow"]) or NO_LIMIT)
    show.page().print(table)


def _key_document(record: KeyRecord) -> dict[str, Any]:
    document = {**asdict(record), "scopes": sorted(record.scopes), "state": record.state(time.time())}
    del document["hash"]
    return document


def _scopes(record: KeyRecord) -> str:
    return ", ".join(scope for scope in Scope if scope in record.scopes)


def _names(allow: Sequence[str] | None) -> str:
    return "" if allow is None else escape(" ".join(allow))


def _shown(limit: float | None) -> str:
    return NO_LIMIT if limit is None else f"{limit:,}"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
