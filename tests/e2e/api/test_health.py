"""The command that Compose and the image use: it distinguishes healthy workers from stopped or dead ones."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_hands import BIN, Mock, Process, Scene, alone_and_on_servers, failed_over, stopped, until

ROOT = Path(__file__).parents[3]
SLOWEST_S = 60.0


def command_of_compose() -> list[str]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    kind, *command = services["worker"]["healthcheck"]["test"]
    assert kind == "CMD"
    return [str(BIN / command[0]), *command[1:]]


def asked(scene: Scene) -> tuple[int, str]:
    done = subprocess.run(
        command_of_compose(), cwd=scene.folder, env=scene.full_environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "" and done.stdout.count("\n") == 1
    return done.returncode, done.stdout


def until_it_says(scene: Scene, code: int, words: str) -> None:
    until(lambda: (said := asked(scene))[0] == code and words in said[1], f"code {code} and '{words}'", SLOWEST_S)


@pytest.fixture
def worker(scene: Scene, providers: Callable[[str], Mock]) -> Process:
    scene.environment["UNDERSTUDY_HEALTH_FILE"] = str(scene.folder / "health")
    assert asked(scene)[0] == 1
    scene.configure(providers(""))
    process = scene.worker("--workers", "2")
    until_it_says(scene, 0, "all is well")
    return process


@pytest.mark.slow
@alone_and_on_servers
def test_one_worker_process_that_is_stopped_is_found_and_recovers(scene: Scene, worker: Process) -> None:
    with stopped(worker.workers()[0]):
        until_it_says(scene, 1, "1 of 2 workers")
    until_it_says(scene, 0, "all is well")


@pytest.mark.slow
def test_a_command_that_is_stopped_is_found(scene: Scene, worker: Process) -> None:
    with stopped(worker.pid):
        until_it_says(scene, 1, "has not been updated for")
    until_it_says(scene, 0, "all is well")


@pytest.mark.slow
def test_a_command_that_was_killed_is_found(scene: Scene, worker: Process) -> None:
    worker.kill_all()
    until_it_says(scene, 1, "has not been updated for")


@pytest.mark.slow
@pytest.mark.parametrize("scene", [pytest.param("servers", marks=pytest.mark.servers)], indirect=True)
def test_workers_without_a_ledger_are_not_well(scene: Scene, worker: Process) -> None:
    with failed_over(scene):
        until_it_says(scene, 1, "0 of 2 workers")
    until_it_says(scene, 0, "all is well")
    assert "starting another" not in worker.said, "they lived all the time"


def test_one_that_has_ended_is_told_and_leaves_no_file(scene: Scene, worker: Process) -> None:
    worker.send(signal.SIGTERM)
    assert worker.exit_code() == 0, worker.said
    code, said = asked(scene)
    assert code == 1 and "has ended" in said and not (scene.folder / "health").exists()


@pytest.mark.slow
def test_the_setting_in_the_file_is_as_good_as_the_variable(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    assert scene.type("health").returncode == 2
    file = scene.folder / "understudy.toml"
    file.write_text(f'health_file = "well"\n{file.read_text()}')
    process, _ = scene.serve()
    until(lambda: scene.type("health").returncode == 0, "all is well")
    process.send(signal.SIGTERM)
    assert process.exit_code() == 0
    assert scene.type("health").returncode == 1


def test_it_costs_little_to_ask(scene: Scene) -> None:
    """Containers ask every few seconds: loading the whole command line would take a second each time."""
    environment = {**scene.full_environment, "UNDERSTUDY_HEALTH_FILE": "health"}
    words = [str(BIN / "python"), "-X", "importtime", "-P", "-m", "producer", "health"]
    done = subprocess.run(words, cwd=scene.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "typer" not in done.stderr and "sqlalchemy" not in done.stderr


def test_the_image_asks_the_same_command(scene: Scene) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (asks,) = [line for line in text.splitlines() if line.startswith("HEALTHCHECK ")]
    assert yaml.safe_load(asks.rpartition(" CMD ")[2]) == [
        Path(command_of_compose()[0]).name,
        *command_of_compose()[1:],
    ]
    assert "\nENV UNDERSTUDY_HEALTH_FILE=/tmp/" in text, "a place that every container may write to"
