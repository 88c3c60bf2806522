"""Options about requests: their source, models and parameters."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from understudy.models.routing.data_rules import Tags, parse_pairs
from understudy.models.routing.request_options import NO_OVERRIDES, RouteOptions
from understudy.producer.ingest.input_rows import Shape

if TYPE_CHECKING:
    from understudy.producer.client.submission import Routing

Source = Annotated[Path, typer.Argument(metavar="INPUT", help="JSONL, CSV or TSV file; - for standard input.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only check INPUT and estimate its cost; store and send nothing.")
]


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The options that shape requests: their models, parameters and lines."""

    system: Annotated[str | None, typer.Option("--system", help="System prompt for every request.")] = None
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model or chain for lines without one, e.g. openai/gpt-4o-mini.")
    ] = None
    chain: Annotated[
        str | None, typer.Option("--chain", help="Chain for every line; overrides the model of the line.")
    ] = None
    fallback: Annotated[list[str] | None, typer.Option("--fallback", help="Model to try next; repeatable.")] = None
    order: Annotated[
        str | None, typer.Option("--order", help="Order of the steps: chain (as written), cheapest or fastest first.")
    ] = None
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="TAG=VALUE",
            help="Only providers with this tag and no other values of it, e.g. region=eu,ch or zdr; repeatable.",
        ),
    ] = None
    forbid: Annotated[
        list[str] | None,
        typer.Option(
            "--forbid", metavar="TAG=VALUE", help="Only providers with this tag and none of these values; repeatable."
        ),
    ] = None
    id_column: Annotated[str | None, typer.Option("--id-column", help="CSV: the column with the id of each line.")] = (
        None
    )
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Maximum output tokens per answer.")] = (
        None
    )
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="Temperature for lines without one.")
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=VALUE",
            help="Another parameter for lines that do not set it; VALUE is JSON, text or @FILE, "
            "e.g. response_format=@schema.json; repeatable.",
        ),
    ] = None
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first N lines.")] = None
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and list invalid lines instead of stopping.")] = (
        False
    )

    def shape(self, prompt: str | None) -> Shape:
        """`prompt`: the template of a CSV. Raises BadParameter, RequestError."""
        route = RouteOptions.of(self.routing())
        return Shape(prompt, self.system, self.id_column, route, self.limit, self.params())

    def routing(self) -> "Routing":
        """Raises BadParameter."""
        return {
            "model": self.model,
            "chain": self.chain,
            "fallbacks": self.fallback or (),
            "order": self.order,
            "require": tags_of("--require", self.require),
            "forbid": tags_of("--forbid", self.forbid),
        }

    def params(self) -> dict[str, Any]:
        """Default parameters for requests that do not set them. Raises BadParameter."""
        named = dict(map(_param, self.param or ()))
        given = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return named | {name: value for name, value in given.items() if value is not None}


USUAL = RequestOptions()


@contextmanager
def as_file(source: Path) -> Iterator[Path]:
    """The input as a file. Standard input is copied to a temporary file, because it is read twice."""
    if str(source) != "-":
        with source.open("rb"):
            yield source
        return
    with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
        copy = Path(folder) / "standard-input"  # no suffix: the options say which format it has
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield copy


def tags_of(option: str, pairs: list[str] | None) -> Tags | None:
    """The tags given by an option; None when it was not given."""
    try:
        return parse_pairs(pairs) if pairs else None
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None


def _param(pair: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is JSON if it parses, else text; @FILE is the JSON in a file."""
    name, equals, text = pair.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"--param {pair!r} must be NAME=VALUE, e.g. seed=7")
    if name in NO_OVERRIDES or name == "model":
        raise typer.BadParameter(f"--param cannot set '{name}': it is not a request parameter")
    try:
        return name, orjson.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except orjson.JSONDecodeError as error:
        if text.startswith("@"):
            raise typer.BadParameter(f"--param {name}: {text[1:]} is not valid JSON: {error.msg}") from None
        return name, text
