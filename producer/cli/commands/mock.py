"""`understudy mock`: the worker package's fake providers, in place of this process."""

import os
import sys

import typer

app = typer.Typer()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def mock(context: typer.Context) -> None:
    """Fake providers over real HTTP with scripted failures; `understudy mock --help` tells more."""
    command = [sys.executable, "-P", "-m", "understudy.worker.mock", *context.args]
    os.execv(sys.executable, command)
