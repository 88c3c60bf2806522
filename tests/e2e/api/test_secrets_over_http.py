"""Secrets of callers and providers pass through a real `understudy up`, and are searched for afterwards.

The ledger and the caller's own answers hold prompts and answers; that is what they are for. A provider's key and the
secret of an API key must not be anywhere.
"""

import asyncio
import json
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from stage_hands import Mock, Process, Scene, alone_and_on_servers, until

from understudy.models.api_keys import Scope, new_key
from understudy.models.config.settings import load_settings
from understudy.models.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time

PROMPT = "canaryprompt7f3a"
ANSWER = "canaryanswer91bc"
PROVIDER_KEY = "Zk3vQ9xT7bLmW2nR8cYd5HfJ1pSg6uAe"
"""Of no shape that could be known as a key: only its exact value can be masked."""
CHAT = "/v1/chat/completions"
ENDED = ("succeeded", "failed", "cancelled", "expired")

MORE = """
[webhooks]
allow_networks = ["127.0.0.0/8"]

[providers.echo]
kind = "openai"
base_url = "{echo}/v1"
api_keys = [{{ name = "main", value = "env.ECHO_KEY" }}]
"""


@contextmanager
def indiscreet_provider() -> Iterator[str]:
    """Fails, and repeats the request and the key in its error."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            status = 401 if "unauthorised" in asked else 200 if "mild" in asked else 400 if "bad" in asked else 503
            key = self.headers["authorization"].removeprefix("Bearer ")
            said = f"no\n{self.headers['authorization']} {key} asked {asked}"
            error = {"message": said, "type": said, "code": 400 if status == 200 else key, "param": key}
            body = json.dumps({"error": error}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.send_header("x-request-id", key)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def key_for(scene: Scene, tenant: str) -> str:
    settings = load_settings(scene.folder / "understudy.toml", scene.environment, scene.folder / ".understudy")
    made = new_key()
    async with open_store(settings.database_url, settings.data) as store:
        await store.api_keys.add(made, tenant=tenant, name="test", scopes=[Scope.ADMIN], actor="test")
    return made.text


def redis_of(scene: Scene) -> Redis:
    if "REDIS_URL" in scene.servers:
        return Redis.from_url(scene.servers["REDIS_URL"])
    (socket,) = Path(scene.environment["TMPDIR"]).rglob("redis.sock")
    return Redis(unix_socket_path=str(socket))


def dumped(redis: Redis) -> bytes:
    """All keys and values, including those that RQ has compressed."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"stream": redis.xrange,
    }
    found: list[bytes] = []
    for key in redis.scan_iter(count=1_000):
        kind = redis.type(key)
        if kind != b"none":  # it has just ended
            found += [key, *_flat(read[kind](key))]
    return b"\n".join(found)


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = [each for pair in value.items() for each in pair]
    if isinstance(value, list | tuple | set):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, bytes):
        yield value
        try:
            yield zlib.decompress(value)
        except zlib.error:
            return
    else:
        yield str(value).encode()


def job(model: str, prompt: str = "good", **words: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"{prompt} {PROMPT}"}], **words}


def batch_of(http: httpx.Client, content: bytes, **words: Any) -> dict[str, Any]:
    upload = http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
    asked = {"input_file_id": upload.json()["id"], "endpoint": CHAT, "completion_window": "24h", **words}
    made = http.post("/v1/batches", json=asked)
    assert made.status_code == 200, made.text
    return ended(http, f"/v1/batches/{made.json()['id']}", "status", ("completed", "failed"))


def ended(http: httpx.Client, path: str, word: str = "state", ends: tuple[str, ...] = ENDED) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = http.get(path).json()
        return dict(found) if found[word] in ends else None

    document: dict[str, Any] = until(look, f"{path} ends")
    return document


def play(a: httpx.Client) -> list[str]:
    """Use every way in for tenant `a`; return the error messages it got, including those of providers."""
    told = []
    dead = "http://127.0.0.1:9/hook"
    for model, prompt in (("alpha/m", "good"), ("echo/m", "bad"), ("echo/m", "mild")):
        made = a.post("/v1/jobs", json=job(model, prompt, callback_url=dead))
        assert made.status_code == 202, made.text
        ended(a, f"/v1/jobs/{made.json()['id']}")
        told += [a.get(f"/v1/jobs/{made.json()['id']}").text, a.get(f"/v1/jobs/{made.json()['id']}/result").text]
    assert ANSWER in told[1]
    assert ANSWER in a.post(CHAT, json=job("alpha/m"), timeout=60).text
    streamed = a.post(CHAT, json=job("alpha/m", stream=True), timeout=60)
    assert streamed.status_code == 200
    told.append(a.post(CHAT, json=job("echo/m", "bad"), timeout=60).text)
    line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": job("alpha/m")}
    good = json.dumps(line).encode() + b"\n"
    other = json.dumps({**line, "custom_id": "2", "body": job("echo/m", "bad")}).encode() + b"\n"
    done = batch_of(a, good + other, webhook_url=dead)
    assert done["status"] == "completed"
    told.append(a.get(f"/v1/files/{done['error_file_id']}/content").text)
    refused = batch_of(a, good + f'{{"custom_id": "{PROMPT}", broken {PROMPT}\n'.encode())
    assert refused["status"] == "failed"
    wrong = [
        json.dumps(refused["errors"]),
        a.post("/v1/jobs", content=b'{"model": "' + PROMPT.encode(), headers={"Content-Type": "application/json"}).text,
        a.post("/v1/jobs", json={**job("alpha/m"), "temperature": PROMPT}).text,
        a.post("/v1/jobs", json={"model": "alpha/m", "messages": [PROMPT]}).text,
        a.post("/v1/jobs", json={"model": "alpha/m", "messages": PROMPT}).text,
    ]
    assert not [each for each in wrong if PROMPT in each]
    told.append(a.get(refused_key(a)).text)
    until(lambda: len(a.get("/v1/webhooks/deliveries").json()["data"]) >= 4, "webhooks are tried")
    until(lambda: any(each["tries"] for each in a.get("/v1/webhooks/deliveries").json()["data"]), "a try has failed")
    return [*told, a.get("/v1/attempts").text, a.get("/v1/webhooks/deliveries").text, a.get("/v1/jobs").text]


def refused_key(a: httpx.Client) -> str:
    """A job whose key the provider refuses, so that the key is disabled; returns its path once that is known."""
    path = f"/v1/jobs/{a.post('/v1/jobs', json=job('echo/m', 'unauthorised')).json()['id']}"
    until(lambda: "auth" in a.get("/v1/attempts", params={"provider": "echo"}).text, "the key is refused")
    return path


@alone_and_on_servers
def test_no_secret_is_where_it_does_not_belong(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(f'[answers]\ntext = "{ANSWER}"\n')
    scene.environment |= {"ALPHA_KEY": PROVIDER_KEY, "BETA_KEY": PROVIDER_KEY, "ECHO_KEY": PROVIDER_KEY}
    with indiscreet_provider() as echo:
        scene.configure(mock, more=MORE.format(echo=echo))
        keys = [asyncio.run(key_for(scene, tenant)) for tenant in ("a", "b")]
        process, url = scene.serve()
        a, b = [httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) for key in keys]
        with a, b:
            hook = a.post("/v1/webhooks/endpoints", json={"url": "http://127.0.0.1:9/all"}).json()["secret"]
            secrets = [hook, a.get("/v1/webhooks/secret").json()["secret"]]
            own_words = play(a)
            with redis_of(scene) as redis:
                in_redis = dumped(redis).decode(errors="replace")
            assert "understudy:" in in_redis
            metrics = httpx.get(f"{url}/metrics").text
            others = [
                b.get(path).text for path in ("/v1/jobs", "/v1/attempts", "/v1/files", "/v1/batches", "/v1/audit")
            ]
            others += [b.get(f"/v1/jobs/{each}").text for each in re.findall(r"job_\w+", own_words[0])[:3]]
        stop(process)
    key_secrets = [each.rpartition("_")[2] for each in keys]
    for place, text in (
        ("the output of the process", process.said),
        ("metrics", metrics),
        ("Redis", in_redis),
        ("another tenant's answers", "".join(others)),
    ):
        for canary in (PROMPT, ANSWER, PROVIDER_KEY, *key_secrets, *secrets):
            assert canary not in text, f"{canary[:12]} is in {place}: {around(text, canary)}"
    for text in own_words:
        assert PROVIDER_KEY not in text, f"a provider's key is told: {around(text, PROVIDER_KEY)}"
    assert_nowhere_on_disk(scene, [PROVIDER_KEY, *key_secrets])


def stop(process: Process) -> None:
    process.send(signal.SIGTERM)
    assert process.exit_code() == 0, process.said


def around(text: str, canary: str) -> str:
    at = text.index(canary)
    return text[max(0, at - 200) : at + 100]


def assert_nowhere_on_disk(scene: Scene, canaries: list[str]) -> None:
    if "DATABASE_URL" in scene.servers:
        tables = [row[0] for row in scene.ledger.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        for table in tables:
            for row in scene.ledger.rows(f'SELECT t::text FROM "{table}" t'):
                assert not [each for each in canaries if each in str(row)], table
    for path in scene.folder.rglob("*"):
        if path.is_file() and not path.is_socket():
            content = path.read_bytes()
            assert not [each for each in canaries if each.encode() in content], path
