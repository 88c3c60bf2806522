"""The command line accepts what docker-compose.yml, the Dockerfile and the pages show."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from understudy.models.config.presets import AZURE_ENDPOINT, PRESETS
from understudy.models.config.settings import CONFIG_NAME, load_settings
from understudy.producer.cli.app import app

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
PAGES = [
    COMPOSE,
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
]


def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: each for name, each in compose()["services"].items() if each.get("build") == "."}


@cache
def command_line() -> Any:
    """The whole `understudy` command line, with commands that do nothing."""
    whole = get_command(app)
    whole.commands = {name: each.loaded() for name, each in whole.commands.items()}
    _silence(whole)
    return whole


def _silence(command: Any) -> None:
    command.callback = lambda *_, **__: None
    for each in getattr(command, "commands", {}).values():
        _silence(each)


def parse(words: list[str]) -> None:
    """As the command line parses them. Raises click's UsageError."""
    command_line().main(args=words, prog_name="understudy", standalone_mode=False)


def written_commands() -> Iterator[tuple[str, str]]:
    """Every `understudy ...` of the pages, in code blocks and in the text, and what compose's `cli` is called with."""
    code_line = re.compile(r"^ *(?:\$ )?(?:\.venv/bin/)?understudy +(\S[^\n]*)", re.MULTILINE)
    patterns = (code_line, re.compile(r"`understudy +([^`]+)`"), re.compile(r"docker compose run [^\n]* cli +([^\n]+)"))
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        blocks = "\n".join(block for language, block in fences if language in ("", "sh", "bash"))
        for pattern, source in zip(patterns, (blocks, text, text), strict=True):
            for match in pattern.finditer(source):
                yield page.name, match[1]


@pytest.mark.parametrize("name", sorted(ours()))
def test_the_command_line_takes_what_each_service_of_compose_is_started_with(name: str) -> None:
    parse(ours()[name]["command"])


@pytest.mark.parametrize(("page", "command"), sorted(set(written_commands())))
def test_the_command_line_takes_every_command_that_a_page_shows(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    for index, word in enumerate(words):
        if word in (">", "|", "&&", "&"):
            words = words[:index]
            break
    parse(words if len(words) > 1 else [*words, "--help"])  # a single word may be the name of a command in a sentence


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such"):
        parse(["worker", "--wrokers", "2"])
    with pytest.raises(Exception, match="No such"):
        parse(["wroker"])


def test_compose_hands_on_the_key_variable_of_every_provider() -> None:
    variables = {preset.env for preset in PRESETS.values() if preset.env} | {AZURE_ENDPOINT, "AWS_REGION"}
    for name, service in ours().items():
        assert variables <= service["environment"].keys(), name


def test_variables_that_compose_leaves_empty_configure_no_provider(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    empty = {name: re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value) for name, value in ours()["worker"]["environment"].items()}
    settings = load_settings(None, empty)
    assert not settings.providers
    assert settings.redis_url == "redis://:understudy@queue:6379/0"
    assert settings.database_url == "postgresql://understudy:understudy@ledger:5432/understudy"


def test_the_queue_requires_the_password_that_every_service_has() -> None:
    queue = compose()["services"]["queue"]
    password = queue["command"][queue["command"].index("--requirepass") + 1]
    assert password == queue["environment"]["REDIS_PASSWORD"]
    assert "$$REDIS_PASSWORD" in queue["healthcheck"]["test"][1]
    assert {each["environment"]["REDIS_URL"] for each in ours().values()} == {f"redis://:{password}@queue:6379/0"}


@pytest.mark.parametrize("name", sorted(compose()["services"]))
def test_a_container_writes_to_its_volumes_only_and_has_no_privileges(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert "build" in service or service["user"] not in ("root", "0"), "it would need privileges to become another user"


IMAGES = [
    *(each["image"] for each in compose()["services"].values() if "build" not in each),
    *re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE),
]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_named_by_its_exact_version_or_digest(image: str) -> None:
    assert re.search(r":\d+\.\d+\.\d+\b|:\d{2}\.\d+-|@sha256:[0-9a-f]{64}$", image), image


def test_workers_start_after_the_schema_and_are_killed_after_their_grace() -> None:
    worker = ours()["worker"]
    assert worker["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    command = worker["command"]
    grace_s = float(command[command.index("--grace") + 1])
    assert grace_s < float(worker["stop_grace_period"].removesuffix("s"))


def test_the_configuration_is_mounted_as_a_folder_in_which_the_command_looks_for_it() -> None:
    for service in ours().values():
        source, target, mode = service["volumes"][0].split(":")
        assert (ROOT / source).is_dir()
        assert (target, mode) == (service["working_dir"], "ro")


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    example = ROOT / "config" / CONFIG_NAME.replace(".toml", ".example.toml")
    settings = load_settings(example, {"ANTHROPIC_API_KEY": "sk"}, tmp_path)
    assert set(settings.chains) == {"default"}


def test_the_image_copies_every_package_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    for package in ("models", "producer", "worker"):
        assert f"COPY {package} {package}" in lines
    user = next(line.split()[1] for line in reversed(lines) if line.startswith("USER "))
    assert user not in ("0", "root")
    entrypoint = next(line for line in lines if line.startswith("ENTRYPOINT "))
    assert yaml.safe_load(entrypoint.removeprefix("ENTRYPOINT ")) == ["understudy"]
