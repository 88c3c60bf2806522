"""SIGKILL at the HTTP API while producers post: what it accepted exists once, and ends."""

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from stage_hands import DEADLINE_S, Mock, Process, Scene, alone_and_on_servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time

SEED = 3
KILLS = 4
LINES = 1_200
PAUSE_S = 0.15
BATCH_PAUSE_S = 0.8
"""Producers rest between two requests, so that what they made is worked off within the test's time."""

FILL_LEASE_S = 15.0
QUICK = "[answers]\nlatency_s = { kind = 'lognormal', median = 0.05, sigma = 0.5 }\n"
LOOPBACK = '\n[webhooks]\nallow_networks = ["127.0.0.0/8"]\n'
SUCCESS = {200, 202}


class Receiver:
    """Records under which webhook ids each object was announced."""

    def __init__(self) -> None:
        self.told: defaultdict[str, set[str]] = defaultdict(set)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.told[body["data"]["id"]].add(self.headers["webhook-id"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ended"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


class Producers:
    """Post until told to stop, wherever the server is at the moment, and record what was answered with success."""

    def __init__(self, callback_url: str) -> None:
        self.url = ""
        self.named: defaultdict[str, set[str]] = defaultdict(set)
        self.unnamed: list[str] = []
        self.batches: defaultdict[str, set[str]] = defaultdict(set)
        self.wrong: list[str] = []
        self._callback_url = callback_url
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._produce, args=(each, index), daemon=True)
            for index, each in enumerate((self._single, self._single, self._many, self._unnamed, self._batch))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """A request that was begun is posted again until it is answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _produce(self, post: Callable[[httpx.Client, str], None], index: int) -> None:
        number = 0
        with httpx.Client(timeout=5) as http:
            while not self._stop.is_set():
                try:
                    post(http, f"{index}-{number}")
                except Exception as error:
                    self.wrong.append(repr(error))
                    return
                number += 1
                self._stop.wait(PAUSE_S if post != self._batch else BATCH_PAUSE_S)

    def _job(self, name: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": name}]
        return {"model": "alpha/m", "messages": messages, "custom_id": name, "callback_url": self._callback_url}

    def _single(self, http: httpx.Client, name: str) -> None:
        answer = self._posted(http, "/v1/jobs", headers={"Idempotency-Key": name}, json=self._job(name))
        self.named[name].add(answer["id"])
        if len(self.named) % 5 == 0:  # as if the answer was lost
            again = self._posted(http, "/v1/jobs", headers={"Idempotency-Key": name}, json=self._job(name))
            self.named[name].add(again["id"])

    def _many(self, http: httpx.Client, name: str) -> None:
        names = [f"{name}-{each}" for each in range(5)]
        body = {"jobs": [self._job(each) for each in names]}
        answer = self._posted(http, "/v1/jobs:batch", headers={"Idempotency-Key": name}, json=body)
        for each, made in zip(names, answer["data"], strict=True):
            self.named[each].add(made["id"])

    def _unnamed(self, http: httpx.Client, name: str) -> None:
        answer = self._once(http, "/v1/jobs", json=self._job(f"unnamed-{name}"))
        if answer is not None:
            self.unnamed.append(answer["id"])

    def _batch(self, http: httpx.Client, name: str) -> None:
        lines = [
            {"custom_id": str(line), "method": "POST", "url": "/v1/chat/completions", "body": self._line(name, line)}
            for line in range(LINES)
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = self._posted(http, "/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
        asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = self._posted(http, "/v1/batches", headers={"Idempotency-Key": f"b{name}"}, json=asked)
        self.batches[name].add(made["id"])

    def _line(self, name: str, line: int) -> dict[str, Any]:
        return {"model": "alpha/m", "messages": [{"role": "user", "content": f"batch {name} line {line}"}]}

    def _posted(self, http: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
        return dict(until(lambda: self._once(http, path, **request), f"{path} is answered with success"))

    def _once(self, http: httpx.Client, path: str, **request: Any) -> dict[str, Any] | None:
        try:
            answer = http.post(f"{self.url}{path}", **request)
        except httpx.TransportError:
            time.sleep(0.02)
            return None
        if answer.status_code in SUCCESS:
            return dict(answer.json())
        if answer.status_code != 503 or "retry-after" not in answer.headers:
            self.wrong.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        return None


def killed_at_random(producers: Producers, serve: Callable[[], tuple[Process, str]]) -> None:
    """A server that is killed repeatedly while it works, at moments that the seed decides; the last one lives."""
    chance = random.Random(SEED)
    server, producers.url = serve()
    producers.start()
    for _ in range(KILLS):
        wait_for_more(producers)
        time.sleep(chance.uniform(0.0, 1.3))
        server.kill_all()
        server, producers.url = serve()
    wait_for_more(producers)
    producers.finish()


def wait_for_more(producers: Producers) -> None:
    """Even on a slow machine, the server has accepted some of each kind since it was started."""
    named, unnamed = len(producers.named), len(producers.unnamed)
    until(
        lambda: len(producers.named) > named + 4 and len(producers.unnamed) > unnamed + 1,
        "the server accepts requests",
    )


def assert_batches_are_whole(scene: Scene, url: str, ids: set[str]) -> None:
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        for batch_id in ids:
            batch = http.get(f"/v1/batches/{batch_id}").json()
            assert batch["status"] == "completed", batch
            assert batch["request_counts"]["total"] == LINES
            files = [batch[part] for part in ("output_file_id", "error_file_id") if batch[part]]
            shown = [line for file in files for line in http.get(f"/v1/files/{file}/content").text.splitlines()]
            assert Counter(json.loads(line)["custom_id"] for line in shown) == {str(n): 1 for n in range(LINES)}
    assert {row.id for row in scene.ledger.rows("SELECT id FROM batch")} == ids, "each name made one batch"
    early = "job j JOIN batch b ON b.id = j.batch_id WHERE j.started_at < b.started_at"
    assert scene.ledger.count(early) == 0, "nothing of a batch starts before all of it is there"


@alone_and_on_servers
def test_what_a_killed_api_accepted_is_there_once_and_ends(
    scene: Scene, providers: Callable[[str], Mock], receiver: Receiver
) -> None:
    scene.configure(providers(QUICK), concurrency=200, more=LOOPBACK)
    producers = Producers(receiver.url)
    alone = not scene.servers
    if not alone:
        scene.worker()
    killed_at_random(producers, lambda: scene.serve("up" if alone else "api"))
    assert not producers.wrong
    assert len(producers.named) > 20 and len(producers.unnamed) > 5 and producers.batches, "the kills must hit work"

    until(lambda: scene.ledger.count("batch WHERE ended_at IS NULL") == 0, "all batches end", 60 + FILL_LEASE_S)
    until(lambda: scene.ledger.count("job WHERE ended_at IS NULL") == 0, "all jobs end")
    until(lambda: scene.ledger.count("webhook_delivery WHERE state <> 'delivered'") == 0, "all webhooks are sent")
    singles = scene.ledger.rows("SELECT id, custom_id, state FROM job WHERE batch_id = ''")
    assert {row.state for row in singles} == {"succeeded"}
    assert scene.ledger.count("result") == scene.ledger.count("job")
    by_name = Counter(row.custom_id for row in singles)
    id_of = {row.custom_id: row.id for row in singles}
    for name, ids in producers.named.items():
        assert by_name[name] == 1 and ids == {id_of[name]}, f"{name} made one job, and each answer names it"
    assert set(producers.unnamed) <= {row.id for row in singles}
    assert_batches_are_whole(scene, producers.url, {id_ for ids in producers.batches.values() for id_ in ids})
    assert receiver.told.keys() == {row.id for row in singles}
    assert {len(ids) for ids in receiver.told.values()} == {1}, "each end is told of under one id"
