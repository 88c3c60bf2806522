"""`understudy mock`: replaces this process by the fake providers of the worker package."""

import os
import sys

import typer

app = typer.Typer()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def mock(context: typer.Context) -> None:
    """Fake providers over real HTTP with scripted failures; see `understudy mock --help`."""
    command = [sys.executable, "-P", "-m", "understudy.worker.mock", *context.args]
    os.execv(sys.executable, command)
