"""`understudy health`: the health check of a container."""

import typer

from understudy.models.config.settings import SettingsError
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.cli.options import Commands
from understudy.producer.processes.health_file import tell

app = Commands()


@app.command()
def health(installation: Installation = HERE) -> None:
    """Check the service that writes the health file: exit code 0 or 1, and one sentence.

    `up`, `api`, `worker` and `run` write the file given by UNDERSTUDY_HEALTH_FILE or the setting health_file.
    """
    with plain_errors():
        file = installation.settings().health_file
        if file is None:
            raise SettingsError(
                "no health file is configured; set UNDERSTUDY_HEALTH_FILE for this command and for the service"
            )
    raise typer.Exit(tell(file))
