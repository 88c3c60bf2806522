"""Options and arguments shared by several commands, and parsers of option values."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from understudy.models.weights import weight_of
from understudy.producer.durations import seconds_of


def dollars(text: str) -> float:
    """5, 0.01 or $5: an amount above zero."""
    with suppress(ValueError):
        if 0 < (usd := float(text.strip().removeprefix("$"))) < math.inf:
            return usd
    raise typer.BadParameter(f"{text!r} is not an amount of US dollars; write 5 or 0.01")


def duration_s(text: str) -> float:
    """90, 90s, 15m, 24h or 7d, in seconds."""
    seconds = seconds_of(text.strip())
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is not a duration; write 90s, 15m, 24h or 7d")
    return seconds


def weight(text: str) -> float:
    """The share of a batch or tenant when turns are taken."""
    try:
        return weight_of(text)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None


Config = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file; default: understudy.toml in this folder, if present."),
]
Data = Annotated[Path | None, typer.Option("--data", help="Folder for the queue and the ledger; default .understudy.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant; default: all tenants.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
CsvSafe = Annotated[
    bool, typer.Option("--csv-safe", help="In CSV, prefix cells that a spreadsheet would evaluate with an apostrophe.")
]
BatchId = Annotated[str, typer.Argument(metavar="ID", help="Id of a batch, or latest or - for the newest.")]
AnyId = Annotated[str, typer.Argument(metavar="ID", help="Id of a batch or job, or latest or - for the newest batch.")]
MaybeId = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="Id of a batch or job, or latest or - for the newest batch.")
]
AnotherModel = Annotated[str | None, typer.Option("--model", "-m", help="Ask this model instead.")]
AnotherChain = Annotated[str | None, typer.Option("--chain", help="Use this chain instead.")]
BudgetUsd = Annotated[
    float | None,
    typer.Option(
        "--budget-usd", parser=dollars, metavar="USD", help="Pause the batch before its calls cost more than this."
    ),
]
Weight = Annotated[
    float,
    typer.Option(
        "--weight",
        parser=weight,
        metavar="NUMBER",
        help="Share of capacity relative to other batches, 0.01 to 100; default 1.",
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")]
Concurrency = Annotated[
    int | None, typer.Option("--max-concurrency", min=1, max=10_000, help="Calls in flight per worker process.")
]
