"""Single jobs over HTTP, with real processes: polled, cancelled in flight, kept through a kill."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from stage_hands import DEADLINE_S, Mock, Scene, alone_and_on_servers, until

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

QUICK = "[answers]\nlatency_s = 0.05\n"
HANGS = "[answers]\nlatency_s = 60\n"
JOB: dict[str, Any] = {"model": "alpha/m", "messages": [{"role": "user", "content": "Say hello."}]}
ENDED_S = 30
LOOKS_EVERY_S = 1.0


def polled(http: httpx.Client, answer: httpx.Response) -> httpx.Response:
    """Does what Power Automate does: 202 means ask `Location` again; everything else is the end."""
    deadline = time.monotonic() + ENDED_S
    while answer.status_code == 202 and time.monotonic() < deadline:
        assert 0 < int(answer.headers["retry-after"]) <= 60
        answer = http.get(answer.headers["location"])
    return answer


@alone_and_on_servers
def test_a_job_is_polled_until_it_is_answered(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(QUICK))
    _, url = scene.serve()
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        answer = polled(http, http.post("/v1/jobs", json=JOB))
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"]
        assert answer.json()["extra_fields"]["provider"] == "alpha"
        (call,) = http.get("/v1/attempts").json()["data"]
        assert call["failure"] is None and call["provider"] == "alpha" and call["key"] == "main"
        (job,) = http.get("/v1/jobs", params={"state": "succeeded", "provider": "alpha"}).json()["data"]
        assert job["id"] == call["job_id"] == answer.json()["extra_fields"].get("job_id", job["id"])


@pytest.mark.slow
@alone_and_on_servers
def test_a_job_is_cancelled_while_its_call_is_in_flight(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(HANGS)
    scene.configure(mock)
    _, url = scene.serve()
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        job = http.post("/v1/jobs", json=JOB).json()
        until(lambda: mock.in_flight() == 1, "the call is in flight")
        assert http.delete(f"/v1/jobs/{job['id']}").json()["cancel_requested"]
        until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled", "it is cancelled", 10)
        until(lambda: mock.in_flight() == 0, "the call was broken off", 10)
        assert polled(http, http.get(f"/v1/jobs/{job['id']}/result")).status_code == 409


@alone_and_on_servers
def test_the_call_of_a_cancelled_job_is_stopped_at_once(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(HANGS)
    scene.configure(mock)
    _, url = scene.serve()
    took = []
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        for _ in range(5):
            job = http.post("/v1/jobs", json=JOB).json()
            until(lambda: mock.in_flight() == 1, "the call is in flight")
            began = time.monotonic()
            assert http.delete(f"/v1/jobs/{job['id']}").status_code == 200
            until(lambda: mock.in_flight() == 0, "the call is stopped", 5)
            took.append(time.monotonic() - began)
    assert max(took) < 1.0, took
    assert sorted(took)[2] < LOOKS_EVERY_S / 2.5, f"faster than workers look into the ledger: {took}"


@alone_and_on_servers
@pytest.mark.slow
def test_what_was_accepted_is_answered_after_a_kill(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(QUICK))
    server, url = scene.serve()
    accepted = []
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        for number in range(30):
            answer = http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": f"job {number}"})
            accepted.append((f"job {number}", answer.json()["id"]))
    server.kill_all()
    _, url = scene.serve()
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        for key, job_id in accepted:
            again = http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": key})
            assert (again.status_code, again.json()["id"]) == (202, job_id)
            assert polled(http, again).status_code == 200
        assert len(http.get("/v1/jobs", params={"limit": 100}).json()["data"]) == 30


@pytest.mark.slow
@alone_and_on_servers
def test_a_held_submission_is_answered_when_the_provider_has_answered(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers("[answers]\nlatency_s = 1\n"))
    _, url = scene.serve()
    with httpx.Client(base_url=url, timeout=60) as http:
        began = time.monotonic()
        answer = http.post("/v1/jobs", json=JOB, headers={"Prefer": "wait=30"})
        assert time.monotonic() - began < 10
        assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
        assert answer.headers["preference-applied"] == "wait=30"
        assert http.get(answer.json()["links"]["result"]).status_code == 200
