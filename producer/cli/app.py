"""The application: every command by its name. The module of a command is loaded when that command is typed.

To load all of them takes most of a second of processor time, and the list of commands needs a name and a sentence of
each. A test holds these sentences against what the commands say of themselves.
"""

import gc
import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Listed(NamedTuple):
    """A command as the list of all shows it, and the module of this package that it is in."""

    name: str
    module: str
    help: str


COMMANDS = (
    Listed("run", "run", "Run every prompt of INPUT through its chain of providers and write the results to a file."),
    Listed(
        "mock", "mock", "Fake providers over real HTTP with scripted failures; `understudy mock --help` tells more."
    ),
    Listed("migrate", "migrate", "Bring the database's schema up to date (SQLite does it by itself)."),
    Listed("up", "serve", "Serve the HTTP API and work off the queue, all in one: http://127.0.0.1:8080."),
    Listed(
        "api", "serve", "Serve the HTTP API alone; `understudy worker` does the work, on this machine or on others."
    ),
    Listed(
        "worker", "serve", "Work off the queue until stopped; with REDIS_URL and DATABASE_URL as one of many machines."
    ),
    Listed("submit", "submit", "Accept a file as a batch, or one prompt as a job, and print its id."),
    Listed(
        "status",
        "status",
        "Where a batch or a job stands: counts, rate, time left, cost, who answers, and why it waits.",
    ),
    Listed(
        "watch",
        "watch",
        "Show the progress of a batch or a job until it has ended. Exit code 0 if all of it succeeded, else 1.",
    ),
    Listed("results", "results", "Print what has ended, one line per job, also while the rest still runs."),
    Listed(
        "attempts",
        "attempts",
        "The log of provider calls: of a batch, a job, or all; the latest ones, oldest first. With --json, JSON lines.",
    ),
    Listed(
        "cancel", "batches", "Cancel a batch or a job. What has ended keeps its result; calls in flight are stopped."
    ),
    Listed(
        "retry",
        "batches",
        "Run again what ended without an answer, as a new batch that points at the old one; print its id.",
    ),
    Listed("pause", "batches", "Hold a batch: calls in flight go on, no other job of it starts."),
    Listed(
        "resume",
        "batches",
        "Let a held batch go on; a batch, tenant or provider that spent its budget is granted the amount once more.",
    ),
    Listed("ack", "batches", "Say that you have the results of a batch or a job."),
    Listed(
        "providers",
        "providers",
        "Each provider, key and model in use: its limits, its use, what it waits for, and why it is set aside.",
    ),
    Listed(
        "prune",
        "prune",
        "Delete what ended long ago, in every tenant: batches and single jobs with their prompts, answers and files.",
    ),
    Listed(
        "check",
        "check",
        "Validate the configuration: stores, each provider, key (masked), model, limit and price, and the chains.",
    ),
    Listed("keys", "keys", "Make, list and revoke keys of the HTTP API."),
    Listed("tenants", "tenants", "What tenants may use, and what they used."),
    Listed(
        "audit",
        "audit",
        "Who did what to what: the latest acts of administration, oldest first. With --json, JSON lines.",
    ),
    Listed("webhooks", "webhooks", "Who is told of what ends, and whether it got there."),
    Listed(
        "workers",
        "workers",
        "The worker processes whose leases run, the jobs that each has, and the tickets that wait in the queues.",
    ),
    Listed(
        "health", "health", "Whether the service that writes the health file works: exit code 0 or 1, and one sentence."
    ),
)


class LazyCommand(TyperCommand):
    """Stands for a command until it is typed."""

    def __init__(self, listed: Listed) -> None:
        super().__init__(listed.name, help=listed.help)
        self._listed = listed

    def make_context(self, *given: Any, **more: Any) -> Any:
        """That of the command itself: what it takes, its help, what it does, the commands below it."""
        command = self.loaded()
        if not gc.isenabled():  # `__main__` puts it off until now: what is loaded stays
            gc.freeze()
            gc.enable()
        return command.make_context(*given, **more)

    def loaded(self) -> Any:
        """The command itself."""
        holder = typer.Typer(rich_markup_mode=app.rich_markup_mode)
        holder.add_typer(import_module(f"{__package__}.commands.{self._listed.module}").app)
        return get_group(holder).commands[self._listed.name]


class AllCommands(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes | {"commands": {each.name: LazyCommand(each) for each in COMMANDS}})


app = typer.Typer(
    name="understudy",
    cls=AllCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # slow to load, and nothing else needs it

        sys.stdout.write(f"understudy {version('understudy')}\n")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run LLM completions in bulk: a queue, a chain of providers per job, results that are never lost."""
