"""A job that kills the worker that runs it, among innocent ones."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest
from stage_hands import Mock, Process, Scene, alone_and_on_servers, kill

pytestmark = pytest.mark.timeout(400)  # tests on the named servers wait for their turn

INNOCENT = 400
CONCURRENCY = 25


class Deadly(socketserver.ThreadingTCPServer):
    """A provider whose mere call kills the worker that makes it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.run: Process | None = None
        self.kills = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(socketserver.StreamRequestHandler):
    server: Deadly

    def handle(self) -> None:
        if self.rfile.readline() and self.server.run is not None:
            self.server.kills += 1
            for pid in self.server.run.workers():
                kill(pid)


@pytest.fixture
def deadly() -> Iterator[Deadly]:
    with Deadly() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@alone_and_on_servers
def test_a_job_that_kills_its_workers_is_dead_lettered_alone(
    scene: Scene, providers: Callable[[str], Mock], deadly: Deadly
) -> None:
    mock = providers("[answers]\nlatency_s = 0.25\n")
    venom = f'[providers.venom]\nkind = "openai"\nbase_url = "{deadly.url}"\n'
    venom += 'api_keys = [{ name = "main", value = "env.BETA_KEY" }]\n'
    # a lease above four seconds: a worker that dies within five of its start counts as one that cannot start
    scene.configure(mock, concurrency=CONCURRENCY, lease_s=4.5, more=venom)
    source = scene.write_prompts(INNOCENT)
    lines = source.read_text().splitlines()
    lines.insert(CONCURRENCY // 2, json.dumps({"custom_id": "poison", "prompt": "p", "model": "venom/m"}))
    source.write_text("\n".join(lines))

    deadly.run = run = scene.run(source)
    assert run.exit_code(120.0) == 1, run.said
    assert scene.ledger.states() == {"succeeded": INNOCENT, "failed": 1}
    [poison] = scene.ledger.rows("SELECT custom_id, crashes FROM job WHERE state = 'failed'")
    assert poison.custom_id == "poison"
    assert poison.crashes == deadly.kills == 5
    [dead] = [line for line in scene.lines() if line["custom_id"] == "poison"]
    assert dead["error"]["code"] == "crashed"
    assert scene.ledger.rows("SELECT max(crashes) worst FROM job WHERE state = 'succeeded'")[0].worst <= 2
