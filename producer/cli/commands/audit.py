"""`understudy audit`: the log of administrative actions."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from understudy.models.config.settings import Settings
from understudy.models.objects.administration import act_object
from understudy.models.store import Store
from understudy.producer.cli import options
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.status import printing as show

app = options.Commands()

MOST = 10_000
VALUE_CHARS = 60


@app.command()
def audit(
    since: Annotated[
        float | None,
        typer.Option("--since", parser=options.duration_s, metavar="TIME", help="Only the last 15m, 24h, …"),
    ] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only actions by this key or user.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Only actions of this kind, such as key.create.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MOST, help="Show the latest N actions.")] = 50,
    tenant: options.Tenant = None,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Show the latest administrative actions and who took them, oldest first. With --json, JSON lines.

    Covers HTTP and the command line, with old and new values. Rejected API keys and reads of secrets are logged, too.
    """

    async def work(_: Settings, store: Store) -> None:
        begin = None if since is None else time.time() - since
        acts = (await store.audit.entries(tenant, limit, since=begin, actor=actor, action=action))[::-1]
        show.print_rows(acts, as_json, act_object, _print, "No matching actions are on record.")

    installation.on_ledger(work)


def _print(acts: Sequence[Mapping[str, Any]]) -> None:
    table = show.new_table("at", "actor", "action", "object", "tenant", "old", "new")
    for act in acts:
        times = f" ({act['times']:,} times)" if act["times"] > 1 else ""
        table.add_row(
            datetime.fromtimestamp(act["at"]).strftime("%Y-%m-%d %H:%M:%S"),
            *(escape(each) for each in (act["actor"], act["action"] + times, act["subject"], act["tenant"])),
            *(escape(_shown(act[name])) for name in ("old", "new")),
        )
    show.page().print(table)


def _shown(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in (values or {}).items())


def _value(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= VALUE_CHARS else text[: VALUE_CHARS - 3] + "..."
