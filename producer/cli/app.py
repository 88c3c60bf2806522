"""The application: all commands by name. A command's module is imported only when that command is invoked.

Importing all of them costs most of a second of CPU time, and the overview needs only a name and a sentence for each. A
test keeps these sentences in step with the docstrings of the commands.
"""

import gc
import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Listed(NamedTuple):
    """A command as shown in the overview, and the module that implements it."""

    name: str
    module: str
    help: str


COMMANDS = (
    Listed("run", "run", "Run every prompt of INPUT through its chain of providers and write the results to a file."),
    Listed("mock", "mock", "Fake providers over real HTTP with scripted failures; see `understudy mock --help`."),
    Listed("migrate", "maintenance", "Bring the database schema up to date (automatic with SQLite)."),
    Listed("up", "serve", "Serve the HTTP API and process the queue in one command, at http://127.0.0.1:8080."),
    Listed(
        "api", "serve", "Serve only the HTTP API; `understudy worker` processes the jobs, on this or other machines."
    ),
    Listed(
        "worker",
        "serve",
        "Process the queue until stopped; with REDIS_URL and DATABASE_URL, on any number of machines.",
    ),
    Listed("submit", "submit", "Accept a file as a batch, or one prompt as a job, and print its id."),
    Listed(
        "status",
        "status",
        "Show the state of a batch or job: counts, rate, time left, cost, providers, and why it waits.",
    ),
    Listed(
        "watch",
        "watch",
        "Show the progress of a batch or job until it ends. Exit code 0 if everything succeeded, else 1.",
    ),
    Listed(
        "results", "results", "Print the results so far, one line per finished job; works while the rest is running."
    ),
    Listed(
        "attempts",
        "attempts",
        "Show the latest provider calls of a batch, a job or all jobs, oldest first. With --json, JSON lines.",
    ),
    Listed(
        "cancel", "batches", "Cancel a batch or a job. Finished jobs keep their results; calls in flight are aborted."
    ),
    Listed(
        "retry",
        "batches",
        "Rerun the jobs that ended without an answer, as a new batch linked to the old one; print its id.",
    ),
    Listed("pause", "batches", "Pause a batch: calls in flight continue, no further jobs start."),
    Listed(
        "resume",
        "batches",
        "Resume a paused batch. If a batch, tenant or provider has spent its budget, grant the same amount again.",
    ),
    Listed("ack", "batches", "Acknowledge that you have received the results of a batch or a job."),
    Listed(
        "providers",
        "providers",
        "Show each provider, key and model in use: limits, usage, what it waits for, and why it is disabled.",
    ),
    Listed(
        "prune",
        "maintenance",
        "Delete old finished batches and single jobs of all tenants, with their prompts, answers and files.",
    ),
    Listed(
        "check",
        "check",
        "Validate the configuration: stores, each provider, key (masked), model, limit and price, and the chains.",
    ),
    Listed("keys", "keys", "Create, list and revoke API keys."),
    Listed("tenants", "tenants", "Show and set the limits of tenants, and show their usage."),
    Listed(
        "audit",
        "audit",
        "Show the latest administrative actions and who took them, oldest first. With --json, JSON lines.",
    ),
    Listed("webhooks", "webhooks", "Manage webhook endpoints and their secrets; show and replay deliveries."),
    Listed(
        "workers",
        "workers",
        "Show the live worker processes, their running jobs, and the tickets waiting in the queues.",
    ),
    Listed("health", "health", "Check the service that writes the health file: exit code 0 or 1, and one sentence."),
)


class LazyCommand(TyperCommand):
    """Placeholder for a command until it is invoked."""

    def __init__(self, listed: Listed) -> None:
        super().__init__(listed.name, help=listed.help)
        self._listed = listed

    def make_context(self, *given: Any, **more: Any) -> Any:
        """The context of the real command: its parameters, help, callback and subcommands."""
        command = self.loaded()
        if not gc.isenabled():  # `__main__` disabled it during import: loaded modules stay anyway
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
        from importlib.metadata import version  # slow to import, and nothing else needs it

        sys.stdout.write(f"understudy {version('understudy')}\n")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run LLM completions in bulk: a queue, a chain of providers per job, and results that are never lost."""
