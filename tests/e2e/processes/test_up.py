"""`understudy up` as a whole: how it starts, how it stops, and how it helps users who made a mistake."""

import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from stage_hands import DEADLINE_S, Mock, Scene, alone_and_on_servers, stopped, until

SLOW = "[answers]\nlatency_s = 2.0\n"
GRACE_S = 30.0


def job(prompt: str = "hello") -> dict[str, Any]:
    return {"model": "alpha/m", "messages": [{"role": "user", "content": prompt}]}


@alone_and_on_servers
def test_told_to_stop_once_it_finishes_the_calls_in_flight(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock)
    process, url = scene.serve()
    httpx.post(f"{url}/v1/jobs", json=job()).raise_for_status()
    until(lambda: mock.in_flight() == 1, "the call is in flight")
    process.send(signal.SIGTERM)
    assert process.exit_code() == 0, process.said
    assert scene.ledger.states() == {"succeeded": 1}
    assert mock.answered() == 1 and "Finishing" in process.said


@pytest.mark.slow
def test_told_twice_it_gives_back_what_is_in_flight(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers("[answers]\nlatency_s = 60.0\n")
    scene.configure(mock, grace_s=GRACE_S)
    process, url = scene.serve()
    httpx.post(f"{url}/v1/jobs", json=job()).raise_for_status()
    until(lambda: mock.in_flight() == 1, "the call is in flight")
    (worker,) = process.workers()
    with stopped(worker):
        process.send(signal.SIGTERM)
        process.until(lambda: "Finishing" in process.said, "it says that it stops")
        process.send(signal.SIGTERM)
        process.until(lambda: "Putting back" in process.said, "it says that it stops at once")
    assert process.exit_code(GRACE_S - 5.0) == 0, process.said
    assert scene.ledger.states() == {"queued": 1}


def test_who_is_lost_is_told_the_way(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    _, url = scene.serve()
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        ways = {
            "/v1/completions": "use /v1/chat/completions",
            "/chat/completions": "the base URL ends in /v1",
            "/v1/jobs/": "remove the trailing slash",
        }
        for path, way in ways.items():
            answer = http.post(path, json=job())
            assert answer.status_code == 404 and way in answer.json()["error"]["message"], path
        assert "/docs" in http.get("/v1").json()["error"]["message"]
        assert "<title>Overview" in http.get("/").text
        wrong = http.get("/v1/jobs", params={"limit": "many"}).json()["error"]
        assert wrong["param"] == "limit" and wrong["message"] == "'limit' should be a valid integer"


def test_a_misspelt_word_of_ours_is_refused(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    _, url = scene.serve()
    for field in ("prioritty", "callbackurl", "fallback", "expires_in"):
        refused = httpx.post(f"{url}/v1/jobs", json={**job(), field: 1})
        assert refused.status_code == 400 and "did you mean" in refused.json()["error"]["message"], field
    taken = httpx.post(f"{url}/v1/jobs", json={**job(), "models": [], "service_tier": "auto", "logit_bias": {}})
    assert taken.status_code == 202
