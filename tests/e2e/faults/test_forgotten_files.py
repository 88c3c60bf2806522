"""An hour after delivery, no file of the data folder and no key of the queue holds the content."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from stage_hands import DEADLINE_S, Mock, Scene

MARK = "canary-"
"""Every word of the caller that is content begins so."""

SWEPT_WITHIN_S = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

REFUSES = '[[rules]]\nmessage = "refuse"\nfail = "bad_request"\n'
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"title": f"{MARK}schema", "type": "object"}}}
TOOLS = [{"type": "function", "function": {"name": f"{MARK}tool", "parameters": {"type": "object"}}}]
FALLBACKS = [{"model": "beta/m", "user": f"{MARK}user", "prediction": {"type": "content", "content": f"{MARK}guess"}}]


def body(words: str, **more: Any) -> dict[str, Any]:
    return {"model": "alpha/m", "messages": [{"role": "user", "content": f"{MARK}{words}"}], **more}


def submit(http: httpx.Client) -> tuple[list[str], list[str]]:
    """Create jobs and batches with content in every place that can hold some; return their ids."""
    asked = [body("one", fallbacks=FALLBACKS), body("two", tools=TOOLS), body("refuse"), body("four", user=f"{MARK}u")]
    jobs = [http.post("/v1/jobs", json=each, params={"wait": 20}).json()["id"] for each in asked]
    many = {"jobs": [body("five", response_format=SCHEMA), body("six", temperature=f"{MARK}hot")]}
    answer = http.post("/v1/jobs:batch", json=many, headers={"Idempotency-Key": "k"}).json()
    jobs += [each["id"] for each in answer["data"] if each["id"]]
    batches = []
    for words in ("seven", "refuse too"):
        line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body(words)}
        file = http.post("/v1/files", files={"file": ("in.jsonl", json.dumps(line))}, data={"purpose": "batch"}).json()
        made = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batches.append(http.post("/v1/batches", json={**made, "fallbacks": FALLBACKS}).json()["id"])
    return jobs, batches


def with_marks(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and MARK.encode() in path.read_bytes():
                found.append(str(path.relative_to(folder)))
        except FileNotFoundError:
            continue
    return found


def everything_in(redis: Redis) -> bytes:
    return b"".join(name + (redis.dump(name) or b"") for name in redis.scan_iter())


def test_nothing_in_the_data_folder_and_in_the_queue_holds_what_was_delivered(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers(REFUSES))
    server, url = scene.serve()
    data = scene.folder / ".understudy"
    [socket] = Path(scene.environment["TMPDIR"]).rglob("redis.sock")
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http, Redis(unix_socket_path=str(socket)) as redis:
        assert http.patch("/v1/tenant", json={"store_content": "until_delivered"}).status_code == 200
        jobs, batches = submit(http)
        server.until(lambda: scene.ledger.count("job WHERE ended_at IS NULL") == 0, "all jobs end")
        server.until(lambda: scene.ledger.count("batch WHERE ended_at IS NULL") == 0, "all batches end")
        assert "ledger.db" in {name.removesuffix("-wal") for name in with_marks(data)}
        assert any(name.startswith("files") for name in with_marks(data)), "uploads are there"
        acks = [f"/v1/jobs/{each}/ack" for each in jobs] + [f"/v1/batches/{each}/ack" for each in batches]
        assert {http.post(each).status_code for each in acks} == {200}
        for table in ("job", "batch"):
            scene.ledger.change(f"UPDATE {table} SET delivered_at = delivered_at - 7200")
        server.until(lambda: not with_marks(data), "no file holds a word of it", SWEPT_WITHIN_S)
        assert MARK.encode() not in everything_in(redis)
        again = {"jobs": [body("five", response_format=SCHEMA), body("six", temperature=f"{MARK}hot")]}
        repeated = http.post("/v1/jobs:batch", json=again, headers={"Idempotency-Key": "k"})
        assert repeated.json()["data"][0]["id"] in jobs and MARK not in repeated.text
    assert MARK not in server.said
