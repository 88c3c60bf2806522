"""A webhook whose worker is killed while it sends is sent by another, under the same id."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from stage_hands import Mock, Scene, alone_and_on_servers, kill, until

from understudy.models.config.settings import load_settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store import open_store

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

LOOPBACK = '\n[webhooks]\nallow_networks = ["127.0.0.0/8"]\n'


class HangsOnce:
    """A receiver that never answers its first caller while the test runs, and answers all others."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                outer.ids.append(self.headers["webhook-id"])
                if len(outer.ids) == 1:
                    outer.released.wait()
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/done"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hangs_once() -> Iterator[HangsOnce]:
    made = HangsOnce()
    yield made
    made.close()


async def submit_one(scene: Scene, callback_url: str) -> None:
    settings = load_settings(scene.folder / "understudy.toml", scene.environment, scene.folder / ".understudy")
    async with open_store(settings.database_url, settings.data) as store:
        chain = Chain(steps=(Step(provider="alpha", model="m"),))
        body = '{"messages":[{"role":"user","content":"hello"}]}'
        job_id, deadline = new_id("job"), await store.now() + 600
        job = NewJob(job_id, body, chain, job_id, 0, 3, Priority.NORMAL, expires_at=deadline, callback_url=callback_url)
        await store.intake.accept_jobs("default", [job])


@alone_and_on_servers
def test_a_webhook_whose_worker_is_killed_is_sent_by_another(
    scene: Scene, providers: Callable[[str], Mock], hangs_once: HangsOnce
) -> None:
    scene.configure(providers(""), more=LOOPBACK)
    asyncio.run(submit_one(scene, hangs_once.url))
    workers = scene.worker("--workers", "2")
    workers.until(lambda: hangs_once.ids, "the first try is under way")
    (row,) = scene.ledger.rows("SELECT w.pid FROM webhook_delivery d JOIN worker w ON w.id = d.claimed_by")
    kill(row.pid)
    workers.until(lambda: len(hangs_once.ids) > 1, "another worker tries")
    until(lambda: scene.ledger.count("webhook_delivery WHERE state = 'delivered'") == 1, "it is delivered")
    assert len(hangs_once.ids) == 2 and len(set(hangs_once.ids)) == 1
