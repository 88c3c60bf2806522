"""`understudy tenants`: limits, policies and usage of tenants."""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.markup import escape

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import amount
from understudy.models.routing.allowlist import allowed_name
from understudy.models.routing.data_rules import Tags, shown
from understudy.models.store import Store
from understudy.models.tenants import DEFAULT_TENANT, NO_LIMIT, TENANT_NAME, TenantLimits
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options, requests
from understudy.producer.cli.errors import Refused
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.status import printing as show
from understudy.producer.terminal import say

app = options.Commands()
tenants = options.Commands(no_args_is_help=True, help="Show and set the limits of tenants, and show their usage.")
app.add_typer(tenants, name="tenants")

NONE = "none"
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgGtT]?)[bB]?")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class ContentWord(StrEnum):
    ALWAYS = "always"
    UNTIL_DELIVERED = "until_delivered"
    DEFAULT = "default"  # as configured for the installation


def tenant_name(given: str) -> str:
    if TENANT_NAME.fullmatch(given) is None:
        raise typer.BadParameter(f"{given!r} is not a valid name; use up to 63 letters, digits, '_', '-' and '.'")
    return given


def _limit(given: str, kind: type[int] | type[float]) -> int | float | None:
    """`none` removes a limit."""
    if given == NONE:
        return None
    try:
        value = kind(given.replace("_", ""))
    except ValueError:
        value = -1
    if not 0 <= value < 2**31:
        raise Refused(f"'{given}' is not a valid limit; write 0 or a positive number, or none")
    return value


def _quota(given: str) -> int | None:
    """`none` removes the limit, `default` restores the limit of the installation."""
    if given == ContentWord.DEFAULT:
        return None
    if given == NONE:
        return NO_LIMIT
    found = SIZE.fullmatch(given.replace("_", ""))
    size = 0.0 if found is None else float(found[1]) * UNITS[found[2].lower()]
    if not 0 < size < NO_LIMIT:
        raise Refused(f"'{given}' is not a valid limit; write a positive number, such as 50GB, or none or default")
    return int(size)


def _rules(word: str, pairs: list[str] | None) -> dict[str, Tags]:
    """`none` removes them."""
    if pairs is None:
        return {}
    return {word: {} if pairs == [NONE] else requests.tags_of(f"--{word}", pairs) or {}}


def _allow(settings: Settings, names: list[str] | None) -> dict[str, tuple[str, ...] | None]:
    """`none` removes the list."""
    if names is None:
        return {}
    if names == [NONE]:
        return {"allow": None}
    try:
        return {"allow": tuple(dict.fromkeys(allowed_name(settings, each) for each in names))}
    except ValueError as error:
        raise Refused(f"--allow: {error}") from None


TenantName = Annotated[str, typer.Argument(metavar="NAME", callback=tenant_name, help="Name of a tenant.")]
ANumber = "; none: no limit."
NO_RULE = "; repeatable; none: no rule."


@tenants.command("list")
def list_tenants(installation: Installation = HERE, as_json: options.AsJson = False) -> None:
    """List the tenants that have limits or keys. With --json, one line per tenant."""

    async def work(_: Settings, store: Store) -> list[TenantLimits]:
        known = {each.name: each for each in await store.tenants.limits()}
        for record in await store.api_keys.listed():
            known.setdefault(record.tenant, TenantLimits(record.tenant))
        return sorted(known.values(), key=lambda each: each.name)

    found = installation.on_ledger(work, create=True)
    nothing = f"No tenant has limits or keys; everything belongs to '{DEFAULT_TENANT}', without limits."
    show.print_rows(found, as_json, asdict, _print_tenants, nothing)


def _print_tenants(found: Sequence[TenantLimits]) -> None:
    columns = (
        "jobs per minute",
        "queued jobs",
        "USD per month",
        "weight",
        "require",
        "forbid",
        "allow",
        "store content",
    )
    table = show.new_table("tenant", *columns)
    for each in found:
        limits = (each.jobs_per_minute, each.queued_jobs, each.usd_per_month)
        rules = (shown(each.require), shown(each.forbid), _names(each.allow))
        kept = each.store_content or ContentWord.DEFAULT
        table.add_row(each.name, *(_shown(value) for value in limits), f"{each.weight:g}", *rules, kept)
    show.page().print(table)


@dataclass(frozen=True, slots=True)
class TenantChanges:
    """The options of `tenants set`: None leaves a limit as it is."""

    jobs_per_minute: Annotated[
        str | None, typer.Option("--jobs-per-minute", help=f"Submitted jobs per minute{ANumber}")
    ] = None
    queued_jobs: Annotated[str | None, typer.Option("--queued-jobs", help=f"Waiting jobs{ANumber}")] = None
    usd_per_month: Annotated[
        str | None, typer.Option("--usd-per-month", help=f"US dollars per calendar month (UTC){ANumber}")
    ] = None
    weight: Annotated[
        float | None,
        typer.Option(
            "--weight",
            parser=options.weight,
            metavar="NUMBER",
            help="Share of capacity relative to other tenants; usually 1.",
        ),
    ] = None
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="TAG=VALUE", help=f"Data rule for all its jobs, e.g. region=eu,ch{NO_RULE}"),
    ] = None
    forbid: Annotated[
        list[str] | None,
        typer.Option("--forbid", metavar="TAG=VALUE", help=f"Data rule for all its jobs, e.g. region=us{NO_RULE}"),
    ] = None
    stored_bytes: Annotated[
        str | None,
        typer.Option(
            "--stored-bytes",
            metavar="SIZE",
            help="Maximum size of its stored content: a size such as 50GB, none or default.",
        ),
    ] = None
    open_batches: Annotated[
        str | None,
        typer.Option("--open-batches", help="Maximum number of unfinished batches: a number, none or default."),
    ] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME",
            help="Allow only this chain, provider/model or 'provider/*'; repeatable; none: allow all.",
        ),
    ] = None
    store_content: Annotated[
        ContentWord | None,
        typer.Option("--store-content", help="How long its prompts and answers are stored; default: as configured."),
    ] = None

    def values(self, settings: Settings) -> dict[str, Any]:
        """The new values, by the fields of TenantLimits. Raises Refused."""
        limits = {
            "jobs_per_minute": (self.jobs_per_minute, int),
            "queued_jobs": (self.queued_jobs, int),
            "usd_per_month": (self.usd_per_month, float),
        }
        quotas = {"stored_bytes": self.stored_bytes, "open_batches": self.open_batches}
        changed: dict[str, Any] = {
            word: _limit(text, kind) for word, (text, kind) in limits.items() if text is not None
        }
        changed |= _rules("require", self.require) | _rules("forbid", self.forbid) | _allow(settings, self.allow)
        changed |= {word: _quota(text) for word, text in quotas.items() if text is not None}
        if self.weight is not None:
            changed["weight"] = self.weight
        if self.store_content is not None:
            by_default = self.store_content is ContentWord.DEFAULT
            changed["store_content"] = None if by_default else str(self.store_content)
        return changed


UNCHANGED = TenantChanges()


@tenants.command("set")
def set_tenant(name: TenantName, changes: TenantChanges = UNCHANGED, installation: Installation = HERE) -> None:
    """Change a tenant's limits, weight and policies; the others stay as they are.

    API processes notice within ten seconds. Data rules and allowed models apply to jobs accepted from then on. A
    repeatable option replaces all of its earlier values.
    """

    async def work(settings: Settings, store: Store) -> None:
        changed = changes.values(settings)
        if not changed:
            raise Refused(
                "give at least one of --jobs-per-minute, --queued-jobs, --usd-per-month, --stored-bytes, "
                "--open-batches, --weight, --require, --forbid, --allow and --store-content"
            )
        before = (await store.tenants.use(name, time.time())).limits
        await store.tenants.set_limits(replace(before, **changed), actor=command_line())
        say(f"tenant '{name}' is changed")

    installation.on_ledger(work, create=True)


@tenants.command("show")
def show_tenant(name: TenantName, installation: Installation = HERE, as_json: options.AsJson = False) -> None:
    """Show a tenant's limits, its spending this month, and its waiting jobs."""

    async def work(_: Settings, store: Store) -> dict[str, Any]:
        use = await store.tenants.use(name, time.time())
        queued = (await store.tenants.queued()).get(name, 0)
        return {
            **asdict(use.limits),
            "stored_now": (store_ := await store.tenants.stored(name)).stored_bytes,
            "open_batches_now": store_.open_batches,
            "queued_now": queued,
            "usd_this_month": use.usd_this_month,
            "usd_granted": use.usd_granted,
            "jobs_this_minute": use.accepted_this_minute,
        }

    seen = installation.on_ledger(work, create=True)
    if as_json:
        show.print_json(seen)
        return
    table = show.new_table("", "now", "limit")
    table.add_row("queued jobs", f"{seen['queued_now']:,}", _shown(seen["queued_jobs"]))
    granted = f" + {amount(seen['usd_granted'])} granted" if seen["usd_granted"] else ""
    most = NONE if seen["usd_per_month"] is None else f"{amount(seen['usd_per_month'])}{granted}"
    table.add_row("USD this month", amount(seen["usd_this_month"]), most)
    table.add_row("jobs per minute", f"{seen['jobs_this_minute']:,}", _shown(seen["jobs_per_minute"]))
    table.add_row("stored bytes", f"{seen['stored_now']:,}", _quota_shown(seen["stored_bytes"]))
    table.add_row("open batches", f"{seen['open_batches_now']:,}", _quota_shown(seen["open_batches"]))
    table.add_row("weight", f"{seen['weight']:g}", "")
    for word in ("require", "forbid"):
        table.add_row(word, "", shown(seen[word]) or NONE)
    table.add_row("allow", "", _names(seen["allow"]) or NONE)
    show.page().print(table)


def _names(allow: Sequence[str] | None) -> str:
    return "" if allow is None else escape(" ".join(allow))


def _shown(limit: float | None) -> str:
    return NONE if limit is None else f"{limit:,}"


def _quota_shown(limit: int | None) -> str:
    if limit is None:
        return ContentWord.DEFAULT
    return NONE if limit == NO_LIMIT else f"{limit:,}"
