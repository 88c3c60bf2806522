"""Options and arguments shared by several commands, groups of them, and parsers of option values."""

import functools
import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeVar, cast

import typer

from understudy.models.tenants import weight_of
from understudy.producer.number_format import seconds_of

F = TypeVar("F", bound=Callable[..., Any])


class Commands(typer.Typer):
    """Commands that may take groups of options: parameters whose type is a dataclass, of which every field is an
    option."""

    def command(self, *names: Any, **settings: Any) -> Callable[[F], F]:
        return _ungrouped(super().command(*names, **settings))

    def callback(self, **settings: Any) -> Callable[[F], F]:
        return _ungrouped(super().callback(**settings))


def _ungrouped(register: Callable[[F], F]) -> Callable[[F], F]:
    """Registers a command with each group replaced by its options."""

    def add(command: F) -> F:
        signature = inspect.signature(command)
        groups: dict[str, Callable[..., Any]] = {
            name: each.annotation
            for name, each in signature.parameters.items()
            if isinstance(each.annotation, type) and is_dataclass(each.annotation)
        }
        options = {name: list(inspect.signature(group).parameters.values()) for name, group in groups.items()}

        @functools.wraps(command)
        def call(**given: Any) -> Any:
            made = {
                name: group(**{option.name: given.pop(option.name) for option in options[name]})
                for name, group in groups.items()
            }
            return command(**given, **made)

        flat = [option for name, each in signature.parameters.items() for option in options.get(name, [each])]
        cast(Any, call).__signature__ = signature.replace(parameters=flat)
        register(cast(F, call))
        return command

    return add


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
