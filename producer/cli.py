"""The command line. Standard output carries data only; progress and prose go to standard error."""

import asyncio
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer

from models.catalog import UnknownProvider
from models.chain import Tags
from models.redis_check import QueueUnavailable
from models.routing import RouteOptions
from models.rules import parse_pairs
from models.schema_process import NoJudge
from models.settings import LogSettings, Settings, SettingsError, load_settings
from models.store import Store, StoreError, StoreMisplaced, open_store
from models.store.schema import head
from models.weights import USUAL_WEIGHT, weight_of
from models.wire import NO_OVERRIDES, RequestError
from producer.acting import command_line
from producer.addresses import AddressUnusable
from producer.decoding import InputError
from producer.durations import seconds_of
from producer.estimates import counted
from producer.exits import INTERRUPTED, UNREACHABLE, WRONG_USE
from producer.found_config import told_of
from producer.intake import Shape
from producer.ledger import NoLedger, OtherTenant, UnknownId, open_ledger
from producer.locks import DataFolderBusy, DataFolderUnusable
from producer.main_job import RunOptions
from producer.main_job import run as run_main_job
from producer.output import check_suffix
from producer.restarts import WorkersFailed
from producer.retries import RetryUnderWay
from producer.runs import BadInput, OtherRun, RunRequest
from producer.terminal import complain
from producer.terminal import console as console

app = typer.Typer(
    name="understudy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

BAD_LINES_SHOWN = 20
LOG_OF_RUN = LogSettings(format="text", level="warning")
"""Of its workers: people read it between its own sentences."""

T = TypeVar("T")


class Refused(Exception):
    """What was asked for cannot be done as things stand. One sentence."""


WRONG_USES = (
    *(SettingsError, RequestError, InputError, OtherRun, DataFolderBusy, DataFolderUnusable, StoreMisplaced),
    *(RetryUnderWay, NoLedger, OtherTenant, UnknownId, UnknownProvider, Refused, AddressUnusable),
)
OUT_OF_REACH = (QueueUnavailable, StoreError, WorkersFailed, NoJudge)

Config = Annotated[
    Path | None, typer.Option("--config", help="Configuration file; default: understudy.toml here, if there is one.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Folder for the queue and the ledger; default .understudy.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Only what belongs to this tenant; default: all of them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
CsvSafe = Annotated[
    bool, typer.Option("--csv-safe", help="In CSV, put an apostrophe before cells that a spreadsheet would calculate.")
]


def say(line: str) -> None:
    """One sentence for people, as it is."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)


def settings_from(config: Path | None, data: Path | None) -> Settings:
    return load_settings(config, os.environ, data)


def settings_for_calls(config: Path | None, data: Path | None) -> Settings:
    """For a command that calls providers: a file that was merely found here is told about first."""
    settings = settings_from(config, data)
    for sentence in told_of(settings, config, os.environ):
        say(sentence)
    return settings


def _complain(sentence: str) -> None:
    complain(f"understudy: {sentence}\n")


@contextmanager
def plain_errors(tell: Callable[[str], None] = _complain) -> Iterator[None]:
    """A person's mistake or a missing service becomes one sentence and an exit code; a defect keeps its traceback."""
    try:
        yield
        sys.stdout.flush()  # a closed pipe is noticed here, and not while the interpreter ends
    except BadInput as error:
        _complain_about_lines(error)
        raise typer.Exit(WRONG_USE) from None
    except WRONG_USES as error:
        tell(str(error))
        raise typer.Exit(WRONG_USE) from None
    except OUT_OF_REACH as error:
        tell(str(error))
        raise typer.Exit(UNREACHABLE) from None
    except BrokenPipeError:
        raise  # whoever read our output has seen enough; typer ends quietly
    except OSError as error:
        if error.filename is None:
            raise
        tell(f"{error.filename}: {(error.strerror or 'cannot be used').lower()}")
        raise typer.Exit(WRONG_USE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def on_ledger(config: Path | None, data: Path | None, work: Callable[[Settings, Store], Awaitable[T]]) -> T:
    """Do a command's work on the ledger that its options name."""

    async def opened(settings: Settings) -> T:
        async with open_ledger(settings) as store:
            return await work(settings, store)

    with plain_errors():
        return asyncio.run(opened(settings_from(config, data)))


def _complain_about_lines(error: BadInput) -> None:
    reasons = {bad.reason for bad in error.bad}
    if len(reasons) == 1 and not error.good:
        complain(f"understudy: {reasons.pop()} (every line); nothing was sent\n")
        return
    complain(f"understudy: {counted(len(error.bad), 'bad line')}; nothing was sent:\n")
    for bad in error.bad[:BAD_LINES_SHOWN]:
        complain(f"  line {bad.line}: {bad.reason}\n")
    if len(error.bad) > BAD_LINES_SHOWN:
        complain(f"  and {len(error.bad) - BAD_LINES_SHOWN:,} more\n")
    if error.good:
        fine = f"{counted(error.good, 'line')} {'is' if error.good == 1 else 'are'} fine"
        them = "it" if len(error.bad) == 1 else "them"
        complain(f"Fix {them}, or skip {them} with --skip-bad ({fine})\n")


@contextmanager
def as_file(source: Path) -> Iterator[Path]:
    """The input as a file; standard input is kept for as long as it is read, because it is read twice."""
    if str(source) != "-":
        with source.open("rb"):
            yield source
        return
    with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
        copy = Path(folder) / "standard-input"  # the options say what it holds
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield copy


def dollars(text: str) -> float:
    """5, 0.01 or $5: an amount above nothing."""
    with suppress(ValueError):
        if 0 < (usd := float(text.strip().removeprefix("$"))) < math.inf:
            return usd
    raise typer.BadParameter(f"{text!r} is not an amount of US dollars; write 5 or 0.01")


BatchId = Annotated[str, typer.Argument(metavar="ID", help="Id of a batch; latest or - for the newest one.")]
AnyId = Annotated[str, typer.Argument(metavar="ID", help="Id of a batch or a job; latest or - for the newest batch.")]
Source = Annotated[Path, typer.Argument(metavar="INPUT", help="JSONL, CSV or TSV file; - for standard input.")]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", help="CSV: template of the prompt, columns in braces."),
]
System = Annotated[str | None, typer.Option("--system", help="System prompt put before every request.")]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model or chain for lines that name none, e.g. openai/gpt-4o-mini.")
]
ChainName = Annotated[str | None, typer.Option("--chain", help="Chain for every line, whatever model it names.")]
Fallback = Annotated[
    list[str] | None, typer.Option("--fallback", help="Model to try next; may be given several times.")
]
AnotherModel = Annotated[str | None, typer.Option("--model", "-m", help="Ask this model instead.")]
AnotherChain = Annotated[str | None, typer.Option("--chain", help="Use this chain instead.")]
Require = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="TAG=VALUE",
        help="Only providers with this tag and no other value, e.g. region=eu,ch or zdr; may be given several times.",
    ),
]
Forbid = Annotated[
    list[str] | None,
    typer.Option("--forbid", metavar="TAG=VALUE", help="Only providers that have this tag with other values."),
]
OrderName = Annotated[
    str | None, typer.Option("--order", help="Which step is asked first: chain (as written), cheapest or fastest.")
]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="CSV: the column that names a line.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N lines.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Most tokens of each answer.")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="For lines that name none.")]
Param = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME=VALUE",
        help="Another parameter for lines that do not set it, as JSON or text, or @FILE: response_format=@schema.json.",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without the lines that are wrong, and list them.")]
BudgetUsd = Annotated[
    float | None,
    typer.Option(
        "--budget-usd", parser=dollars, metavar="USD", help="Pause before the calls of the batch cost more than this."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only check INPUT and say what it would cost; keep and send nothing.")
]
Concurrency = Annotated[
    int | None, typer.Option("--max-concurrency", min=1, max=10_000, help="Calls in flight per worker process.")
]


def duration_s(text: str) -> float:
    """90, 90s, 15m, 24h or 7d, in seconds."""
    seconds = seconds_of(text.strip())
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is not a duration; write 90s, 15m, 24h or 7d")
    return seconds


def route_of(
    model: str | None,
    chain: str | None,
    fallback: list[str] | None,
    order: str | None,
    require: list[str] | None,
    forbid: list[str] | None,
) -> RouteOptions:
    return RouteOptions(
        model=model,
        chain=chain,
        fallbacks=tuple(fallback or ()),
        order=order,
        require=tags_of("--require", require),
        forbid=tags_of("--forbid", forbid),
    )


def tags_of(option: str, pairs: list[str] | None) -> Tags | None:
    """Tags as an option names them; None when it was not given."""
    try:
        return parse_pairs(pairs) if pairs else None
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None


def weight(text: str) -> float:
    """A share when turns are taken."""
    try:
        return weight_of(text)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None


Weight = Annotated[
    float,
    typer.Option(
        "--weight",
        parser=weight,
        metavar="NUMBER",
        help="Turns for one of another batch; default 1, 0.01 to 100.",
    ),
]


def shape_of(
    prompt: str | None,
    system: str | None,
    id_column: str | None,
    limit: int | None,
    route: RouteOptions,
    params: Mapping[str, Any],
) -> Shape:
    return Shape(prompt=prompt, system=system, id_column=id_column, limit=limit, route=route, params=params)


def params_of(max_tokens: int | None, temperature: float | None, pairs: list[str] | None) -> dict[str, Any]:
    """Parameters for requests that do not have them themselves."""
    named = dict(map(_param, pairs or ()))
    said = {"max_tokens": max_tokens, "temperature": temperature}
    return named | {name: value for name, value in said.items() if value is not None}


def _param(pair: str) -> tuple[str, Any]:
    """NAME=VALUE; the value as JSON if it is some, else as text; @FILE is the JSON in a file."""
    name, equals, text = pair.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"--param {pair!r} must be NAME=VALUE, e.g. seed=7")
    if name in NO_OVERRIDES or name == "model":
        raise typer.BadParameter(f"--param cannot set '{name}': it is not a parameter of a request")
    try:
        return name, orjson.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except orjson.JSONDecodeError as error:
        if text.startswith("@"):
            raise typer.BadParameter(f"--param {name}: {text[1:]} is not valid JSON: {error.msg}") from None
        return name, text


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"understudy {version('understudy')}\n")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run LLM completions in bulk: a queue, a chain of providers per job, results that are never lost."""


@app.command()
def run(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the results: .jsonl, .csv or .tsv.")],
    prompt: Prompt = None,
    system: System = None,
    model: Model = None,
    chain: ChainName = None,
    fallback: Fallback = None,
    order: OrderName = None,
    require: Require = None,
    forbid: Forbid = None,
    id_column: IdColumn = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    param: Param = None,
    limit: Limit = None,
    skip_bad: SkipBad = False,
    budget_usd: BudgetUsd = None,
    update: Annotated[
        bool, typer.Option("--update", help="Ask lines again that have changed since they were answered.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also try again bad requests and refused content.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget every answer in this output and ask all lines.")
    ] = False,
    csv_safe: CsvSafe = False,
    weight: Weight = USUAL_WEIGHT,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 1,
    max_concurrency: Concurrency = None,
    dry: DryRun = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Run every prompt of INPUT through its chain of providers and write the results to a file.

    Ctrl-C once finishes what is in flight and stops, twice stops at once. Run again into the same OUTPUT, it goes on: a
    line that was answered keeps its answer and is not paid for again, also when lines were added, moved or removed, or
    the chain is another one. A line that has changed since it was answered needs --update.
    """
    route = route_of(model, chain, fallback, order, require, forbid)
    with plain_errors():
        shape = shape_of(prompt, system, id_column, limit, route, params_of(max_tokens, temperature, param))
        settings = with_concurrency((settings_from if dry else settings_for_calls)(config, data), max_concurrency)
        settings = settings.model_copy(update={"logging": LOG_OF_RUN})
        check_suffix(output, csv_safe=csv_safe)
        if dry:
            from producer.dry_run import dry_run  # it stands on this module

            dry_run(settings, source, shape, skip_bad, as_json, None if fresh else output, everything)
            return
        with as_file(source) as path:
            asked = RunRequest(path, output, shape, skip_bad, fresh, update, everything, budget_usd, weight, csv_safe)
            code = asyncio.run(run_main_job(settings, RunOptions(asked, config, workers, as_json), console()))
    raise typer.Exit(code)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def mock(context: typer.Context) -> None:
    """Fake providers over real HTTP with scripted failures; `understudy mock --help` tells more."""
    command = [sys.executable, "-P", "-m", "worker.mock", *context.args]
    os.execv(sys.executable, command)


@app.command()
def migrate(config: Config = None, data: Data = None) -> None:
    """Bring the database's schema up to date (SQLite does it by itself)."""
    with plain_errors():
        asyncio.run(_migrate(settings_from(config, data)))


async def _migrate(settings: Settings) -> None:
    async with open_store(settings.database_url, settings.data, migrate=True) as store:
        await store.record_act(command_line(), "", "migrate", store.place, None, {"schema": head()})
    console().print("The schema is up to date.")


def with_concurrency(settings: Settings, max_concurrency: int | None, grace_s: float | None = None) -> Settings:
    given = {"max_concurrency": max_concurrency, "grace_s": grace_s}
    changed = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=changed)})


def with_address(settings: Settings, host: str | None, port: int | None) -> Settings:
    changed = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    return settings.model_copy(update={"api": settings.api.model_copy(update=changed)})


@cache
def whole_app() -> typer.Typer:
    """The application with the commands of every module."""
    # they stand on this module
    from producer import (
        audit_command,
        batch_commands,
        check_command,
        key_commands,
        look_commands,
        provider_commands,
        prune_command,
        serve_commands,
        submit_command,
        tenant_commands,
        webhook_commands,
        worker_commands,
    )

    for more in (
        serve_commands,
        submit_command,
        look_commands,
        batch_commands,
        provider_commands,
        prune_command,
        check_command,
        key_commands,
        tenant_commands,
        audit_command,
        webhook_commands,
        worker_commands,
    ):
        app.add_typer(more.app)
    return app


def main() -> None:
    whole_app()()
