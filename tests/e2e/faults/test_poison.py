"""Jobs that kill the worker that runs them, or all of `run`, among innocent ones."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage_hands import Mock, Process, Scene, alone_and_on_servers, kill

from understudy.models.jobs.suspects import DEAD_AT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time

CONCURRENCY = 25
DEADLINE_S = 200.0


class Deadly(socketserver.ThreadingTCPServer):
    """A provider whose call kills the workers of a run; with `all_of_it`, the run and everything below it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.run: Process | None = None
        self.all_of_it = False
        self.kills = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def strike(self) -> None:
        if self.run is None:
            return
        self.kills += 1
        if self.all_of_it:
            self.run.kill_all()
        else:
            for pid in self.run.workers():
                kill(pid)


class _Handler(socketserver.StreamRequestHandler):
    server: Deadly

    def handle(self) -> None:
        if self.rfile.readline():
            self.server.strike()


@pytest.fixture
def deadly() -> Iterator[Deadly]:
    with Deadly() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def prompts_with_poison(scene: Scene, mock: Mock, deadly: Deadly, innocent: int, poison: list[int]) -> Path:
    """`poison`: the lines before which a deadly one is inserted."""
    venom = f'[providers.venom]\nkind = "openai"\nbase_url = "{deadly.url}"\n'
    venom += 'api_keys = [{ name = "main", value = "env.BETA_KEY" }]\n'
    scene.configure(mock, concurrency=CONCURRENCY, more=venom)
    source = scene.write_prompts(innocent)
    lines = source.read_text().splitlines()
    for number, place in enumerate(sorted(poison, reverse=True)):
        lines.insert(place, json.dumps({"custom_id": f"poison-{number}", "prompt": "p", "model": "venom/m"}))
    source.write_text("\n".join(lines))
    return source


def assert_poison_failed_alone(scene: Scene, innocent: int, poison: int) -> None:
    assert scene.ledger.states() == {"succeeded": innocent, "failed": poison}
    dead = [line for line in scene.lines() if line["custom_id"].startswith("poison-")]
    assert [line["error"]["code"] for line in dead] == ["crashed"] * poison


@alone_and_on_servers
def test_a_job_that_kills_its_workers_is_dead_lettered_alone(
    scene: Scene, providers: Callable[[str], Mock], deadly: Deadly
) -> None:
    source = prompts_with_poison(scene, providers("[answers]\nlatency_s = 0.1\n"), deadly, 200, [CONCURRENCY // 2])
    deadly.run = run = scene.run(source)
    assert run.exit_code(DEADLINE_S) == 1, run.said
    assert_poison_failed_alone(scene, 200, 1)
    assert deadly.kills == DEAD_AT


def test_a_job_that_kills_all_of_a_run_fails_when_the_run_is_started_again(
    scene: Scene, providers: Callable[[str], Mock], deadly: Deadly
) -> None:
    source = prompts_with_poison(scene, providers("[answers]\nlatency_s = 0.1\n"), deadly, 60, [CONCURRENCY // 2])
    deadly.all_of_it = True
    deadly.run = scene.run(source)
    assert deadly.run.exit_code(DEADLINE_S) == -9, deadly.run.said

    # the crashes in between, each of which takes a start
    scene.ledger.change("UPDATE job SET crashes = :crashes WHERE custom_id LIKE 'poison-%'", crashes=DEAD_AT - 2)
    deadly.run = scene.run(source)
    assert deadly.run.exit_code(DEADLINE_S) == -9, deadly.run.said
    for _ in range(2):
        last = scene.run(source)
        assert last.exit_code(DEADLINE_S) == 1, last.said
        assert_poison_failed_alone(scene, 60, 1)
    assert deadly.kills == 2, "what killed a run is not tried again by the same command"
