"""What `up`, `api` and `worker` log: each line in the requested format, from start to end, without secrets."""

import json
import re
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url
from stage_hands import Mock, Process, Scene, alone_and_on_servers, queue_and_servers, until

PROMPT, KEY, IN_URL = "canary-prompt-71f2", "canary-key-83a0", "canary-url-19cc"


def job(prompt: str = PROMPT) -> dict[str, Any]:
    return {"model": "alpha/m", "messages": [{"role": "user", "content": prompt}]}


def lines(process: Process) -> list[dict[str, Any]]:
    """Every complete line that it has written, as JSON."""
    return [json.loads(line) for line in process.said.rpartition("\n")[0].splitlines()]


def of(process: Process, logger: str) -> list[dict[str, Any]]:
    return [each for each in lines(process) if each["logger"] == logger]


def alive(scene: Scene) -> bool:
    done = scene.type("workers", "--json")
    return done.returncode == 0 and bool(json.loads(done.stdout)["workers"])


def with_password(address: str) -> str:
    """A server that requires no key accepts any."""
    url = make_url(address)
    return (url if url.password else url.set(password=KEY)).render_as_string(hide_password=False)


def stop(process: Process) -> None:
    process.send(signal.SIGTERM)
    assert process.exit_code() == 0, process.said


@pytest.mark.slow
@alone_and_on_servers
def test_up_logs_json_from_its_start_to_its_end(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers("")
    scene.environment["ALPHA_KEY"] = KEY
    if "DATABASE_URL" in scene.environment:
        scene.environment["DATABASE_URL"] = with_password(scene.environment["DATABASE_URL"])
    scene.configure(mock)
    process, url = scene.serve("up", "--log-format", "json")
    with httpx.Client(base_url=url) as http:
        posted = http.post("/v1/jobs", json=job(), params={"token": IN_URL}, headers={"X-Request-ID": "mine-1"})
        made = posted.raise_for_status().json()["id"]
        assert posted.headers["x-request-id"] == "mine-1"
        until(lambda: http.get(f"/v1/jobs/{made}").json()["state"] == "succeeded", "it is done")
        unknown = http.get(f"/{IN_URL}", headers={"X-Request-ID": "not harmless"})
        assert unknown.status_code == 404 and unknown.headers["x-request-id"].startswith("req_")
    process.until(lambda: of(process, "understudy.worker.main"), "the worker has started")
    stop(process)

    requests = of(process, "understudy.producer.api.middleware")
    (submitted,) = [each for each in requests if each["request_id"] == "mine-1"]
    assert [submitted[name] for name in ("method", "path", "status", "tenant")] == ["POST", "/v1/jobs", 202, "default"]
    assert submitted["duration_ms"] > 0
    looked = next(each for each in requests if each["method"] == "GET" and each["status"] == 200)
    assert (looked["path"], looked["job_id"]) == ("/v1/jobs/{job_id}", made)
    (lost,) = [each for each in requests if each["status"] == 404]
    assert lost["path"] == "none" and lost["request_id"] == unknown.headers["x-request-id"]
    assert not [each for each in requests if each["path"] == "/readyz" and each["status"] == 200]

    for each in lines(process):
        assert datetime.fromisoformat(each["time"]).tzinfo is not None and each["level"] and each["message"]
    assert not [canary for canary in (PROMPT, KEY, IN_URL) if canary in process.said]
    began, *_, ended = of(process, "understudy.worker.main")
    assert began["message"].startswith("Started Understudy ") and "slots" in began["message"]
    assert began["worker_id"] == ended["worker_id"]
    assert ended["message"] == "Ended: stopped by SIGTERM; jobs done: 1, put back: 0"
    assert any(
        each["message"].startswith("Draining, stopped by SIGTERM") for each in of(process, "understudy.worker.main")
    )
    last = lines(process)[-1]["message"]
    assert re.fullmatch(r"Ended: stopped by SIGTERM; \d+ requests answered", last)


@queue_and_servers
def test_api_and_worker_log_text_in_one_line_for_each_event(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    scene.environment["UNDERSTUDY_LOG_LEVEL"] = "debug"
    scene.environment["COLUMNS"] = "40"
    api, _ = scene.serve("api")
    worker = scene.worker("--workers", "2")
    worker.until(lambda: worker.said.count(" understudy.worker.main Started Understudy ") == 2, "both have started")
    for process in (api, worker):
        stop(process)
    for process in (api, worker):
        for line in process.said.splitlines():
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 (DEBUG|INFO|WARNING) [\w.]+ \S", line), line
        assert "\x1b" not in process.said
        assert "SIGTERM: Finishing the jobs in flight" in process.said
    assert re.search(r"middleware GET /readyz 200 \d+\.\d ms \[request_id=req_\w+\]$", api.said, re.MULTILINE)
    assert "Ended: stopped by SIGTERM; " in api.said.splitlines()[-1]
    assert worker.said.splitlines()[-1].endswith("Ended: stopped by SIGTERM")
    assert worker.said.count("Ended: stopped by SIGTERM; jobs done: 0, put back: 0 [worker_id=wrk_") == 2


def test_what_it_connects_to_is_logged_without_passwords_also_when_that_fails(scene: Scene) -> None:
    scene.environment["REDIS_URL"] = f"redis://default:{KEY}@127.0.0.1:1/0"
    process = scene.worker("--log-format", "json")
    assert process.exit_code() == 3, process.said
    (line,) = [each for each in lines(process) if each["level"] == "CRITICAL"]
    assert "127.0.0.1:1" in line["message"] and KEY not in process.said


@pytest.mark.slow
def test_less_is_logged_where_that_was_asked_for(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""), more='[logging]\nlevel = "warning"\n')
    worker = scene.worker()
    worker.until(lambda: alive(scene), "the worker has started")
    stop(worker)
    assert worker.said == ""
