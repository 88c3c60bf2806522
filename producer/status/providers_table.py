"""`understudy providers` as text: a table of limits and usage, followed by a sentence for anything unusual."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from understudy.models.failure import Scope
from understudy.models.limits.state import Source
from understudy.producer.number_format import ago, clock_time, duration, until
from understudy.producer.status.printing import WIDE_CHARS, new_table, page

Row = Mapping[str, Any]
"""As returned by `producer.status.provider_state.provider_documents`."""

WORDS = {"no_key": "no key", "unknown": "–"}
COLOURS = {"ready": "green", "disabled": "red", "no_key": "red", "unknown": "dim"}
WAITS_S = 1.0
"""A schedule that is full for less than this is merely well used, and not worth a sentence."""


def print_providers(rows: Sequence[Row]) -> None:
    out, now = page(), time.time()
    if out.width >= WIDE_CHARS:
        out.print(_table(rows))
    else:
        for row in rows:
            out.print(_block(row))
    said = dict.fromkeys(line for row in rows for line in _lines(row, now))
    if said:
        out.print()
    for line in said:
        out.print(line, soft_wrap=False)


def _table(rows: Sequence[Row]) -> Table:
    table = new_table("provider/model", "key")
    daily = any(_today(row) for row in rows)
    for name in ("requests/min", "tokens/min", *(["today"] if daily else []), "in flight", "last minute"):
        table.add_column(name, overflow="fold")
    table.add_column("state", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(f"{row['provider']}/{row['model'] or '–'}"),
            escape(row["key"] or "–"),
            _limit(row["requests_per_minute"]),
            _limit(row["tokens_per_minute"]),
            *([", ".join(_today(row)) or "–"] if daily else []),
            _in_flight(row["in_flight"]),
            _calls(row["last_minute"]),
            _word(row["state"]),
        )
    return table


def _block(row: Row) -> str:
    """The same for a narrow page: a deployment, with its figures below."""
    head = escape(f"{row['provider']}/{row['model'] or '–'}, key {row['key'] or '–'}")
    flight, limits = row["in_flight"], (("requests", "requests_per_minute"), ("tokens", "tokens_per_minute"))
    figures = [f"{word}/min {_limit(row[name])}" for word, name in limits]
    figures += [f"today {', '.join(today)}"] if (today := _today(row)) else []
    figures += [f"in flight {_in_flight(flight)}", f"last minute {_calls(row['last_minute'])}"]
    return f"[bold]{head}[/bold]: {_word(row['state'])}\n   " + "\n   ".join(figures)


def _word(state: str) -> str:
    colour = COLOURS.get(state, "yellow")
    return f"[{colour}]{WORDS.get(state, state)}[/{colour}]"


def _limit(limit: Mapping[str, Any]) -> str:
    """`588 learned`, or `588 of 600, learned` when the learned limit is below the configured one."""
    if limit["limit"] is None:
        return "[dim]unknown[/dim]"
    undercut = limit["configured"] is not None and limit["limit"] < limit["configured"]
    of = f" of {limit['configured']:,}," if undercut else ""
    return f"{limit['limit']:,.0f}{of} {limit['source']}"


def _today(row: Row) -> list[str]:
    """`120 of 1,000 requests`, for limits per UTC day."""
    limits = (("requests", row["requests_per_day"]), ("tokens", row["tokens_per_day"]))
    return [
        f"{'–' if limit['used'] is None else format(limit['used'], ',')} of {limit['limit']:,} {what}"
        for what, limit in limits
        if limit is not None
    ]


def _in_flight(flight: Mapping[str, Any]) -> str:
    now = "–" if flight["now"] is None else f"{flight['now']:,}"
    source = " learned" if flight["source"] == Source.LEARNED else ""
    return now if flight["limit"] is None else f"{now} of {flight['limit']:,}{source}"


def _calls(counts: Mapping[str, int]) -> str:
    """Answered calls, and the other calls by outcome."""
    others = [f"{counts[how]:,} {how}" for how in ("refused", "failed") if counts[how]]
    return ", ".join([f"{counts['answered']:,}", *others])


def _lines(row: Row, now: float) -> Iterator[str]:
    """Sentences about anything unusual. A sentence shared by several rows is printed once."""
    what = escape(f"{row['provider']}/{row['model'] or '–'}")
    if row["key"] is None:
        yield f"[red]{escape(row['provider'])} has no key; set api_keys in its section[/red]"
    for each in row["disabled"]:
        yield f"[red]{_disabled(row, each, now)}[/red]"
    for each in row["cooldowns"]:
        yield f"[yellow]{_cooldown(row, each, now)}[/yellow]"
    brake = row["requests_per_minute"]["until"]
    if brake is not None and brake > max(now, row["next_start"] or 0.0):
        yield (
            f"[yellow]{what} (account {escape(row['account'])}): the provider reports less quota than our usage "
            f"explains, so others share the account; slowed down until {until(brake, now)}[/yellow]"
        )
    if row["next_start"] is not None and row["next_start"] - now > WAITS_S:
        yield (
            f"[yellow]{what} (account {escape(row['account'])}): limit reached; the next call may start at "
            f"{until(row['next_start'], now)}[/yellow]"
        )


def _disabled(row: Row, aside: Mapping[str, Any], now: float) -> str:
    model = f" for {escape(aside['model'])}" if aside["model"] else ""
    tries = f"; one job retries it at {clock_time(aside['probe_at'], now)}" if aside["probe_at"] else ""
    return (
        f"{escape(row['provider'])}, key {escape(row['key'])}: disabled{model} {ago(aside['since'], now)}: "
        f"{escape(aside['reason'].rstrip('.'))}{tries}"
    )


def _cooldown(row: Row, cooldown: Mapping[str, Any], now: float) -> str:
    why, breaker = escape(cooldown["reason"].partition(" at ")[0]), cooldown["scope"] == Scope.PROVIDER
    often = f", {cooldown['in_a_row']} in a row" if cooldown["in_a_row"] > 1 and not breaker else ""
    often += f", since {clock_time(cooldown['since'], now)}" if cooldown["in_a_row"] > 1 else ""
    if cooldown["until"] <= now:
        return f"{_covered(row, cooldown)}: probing with single calls until one succeeds: {why}{often}"
    word = "resting" if breaker else "cooling"
    left = duration(cooldown["until"] - now)
    return f"{_covered(row, cooldown)}: {word} until {clock_time(cooldown['until'], now)} ({left} more): {why}{often}"


def _covered(row: Row, cooldown: Mapping[str, Any]) -> str:
    if cooldown["scope"] == Scope.ACCOUNT:
        return escape(f"account {row['account']}, all models")
    whose = "all keys" if cooldown["scope"] == Scope.PROVIDER else f"account {row['account']}"
    return escape(f"{row['provider']}/{row['model']} ({whose})")
