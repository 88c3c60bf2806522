"""Whatever is sent, the answer is OpenAI's error object with a reason, and the server's memory stays flat."""

import gzip
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from stage_hands import Mock, Process, Scene, until

MIB = 1024 * 1024
GROWTH_MAX = 48 * MIB
"""A body may be held up to its limit of 16 MiB, and more than once while it is looked at."""

GOOD = {"model": "alpha/m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def server(scene: Scene, providers: Callable[[str], Mock]) -> tuple[Process, str]:
    scene.configure(providers(""))
    return scene.serve()


def with_prompt(prompt: str) -> bytes:
    """A job whose prompt is this JSON text."""
    return b'{"model":"alpha/m","messages":[{"role":"user","content":%s}]}' % prompt.encode()


def endless(part: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield part


CASES: dict[str, tuple[bytes | Callable[[], bytes | Iterator[bytes]], dict[str, str], int, str]] = {
    "not JSON": (b"{'model': 1}", {}, 400, "not valid JSON"),
    "nothing": (b"", {}, 400, "empty"),
    "a list": (b"[]", {}, 400, "JSON object"),
    "NaN": (b'{"temperature":NaN}', {}, 400, "not valid JSON"),
    "a lone surrogate": (with_prompt('"\\ud800"'), {}, 400, "not valid JSON"),
    "no UTF-8": (with_prompt('"x"').replace(b"x", b"\xff"), {}, 400, "not valid JSON"),
    "a bomb of depth": (b'{"metadata":' + b"[" * 500_000 + b"]" * 500_000 + b"}", {}, 400, "not valid JSON"),
    "a bomb of depth in a field": (
        b'{"model":"alpha/m","messages":[{"role":"user","content":"x"}],"tools":' + b"[" * 900 + b"]" * 900 + b"}",
        {},
        400,
        "tools",
    ),
    "a body over the limit": (b'{"model":"' + b"x" * 17 * MIB + b'"}', {}, 413, "16,777,216"),
    "a chunked body over the limit": (lambda: endless(b"x" * MIB, 200), {}, 413, "16,777,216"),
    "a compressed bomb": (lambda: gzip.compress(bytes(200 * MIB)), {"Content-Encoding": "gzip"}, 415, "compressed"),
    "a form": (b"model=alpha", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
    "no type": (b"{}", {"Content-Type": ""}, 415, "application/json"),
    "no messages": (b'{"model":"alpha/m"}', {}, 400, "messages"),
    "an unknown model": (with_prompt('"x"').replace(b"alpha/m", b"nobody/m"), {}, 404, "nobody"),
    "NUL in the caller's name": (b'{"custom_id":"a\\u0000b",' + with_prompt('"x"')[1:], {}, 400, "custom_id"),
}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/chat/completions"])
def test_bad_bodies_are_refused_with_a_reason_and_flat_memory(server: tuple[Process, str], path: str) -> None:
    process, url = server
    accepted = httpx.post(f"{url}/v1/jobs", json=GOOD)
    assert accepted.status_code == 202, accepted.text
    before = memory(process)
    for name, (body, headers, status, word) in CASES.items():
        content: Any = body() if callable(body) else body
        words = {"Content-Type": "application/json", **headers}
        answer = httpx.post(f"{url}{path}", content=content, headers=words, timeout=30)
        assert answer.status_code == status, f"{name}: {answer.status_code} {answer.text[:500]}"
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, name
        assert word in error["message"], f"{name}: {error}"
        assert error["type"] == "invalid_request_error", name
        assert memory(process) - before < GROWTH_MAX, name
    assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_request_that_is_never_finished_delays_no_other(server: tuple[Process, str]) -> None:
    _, url = server
    place = urlsplit(url)
    assert place.hostname and place.port
    head = (
        b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((place.hostname, place.port)) as waiting:
        waiting.sendall(head)
        assert httpx.post(f"{url}/v1/jobs", json=GOOD).status_code == 202


def test_line_ends_and_marks_of_windows_and_odd_but_valid_text_are_taken(server: tuple[Process, str]) -> None:
    _, url = server
    prompt = '"' + "x\\u0000\\r\\n\\ud83d\\ude00" + "́" * 50 + '"'
    body = b"\xef\xbb\xbf" + with_prompt(prompt).replace(b",", b",\r\n")
    answer = httpx.post(f"{url}/v1/jobs", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == 202, answer.text
    job = answer.headers["Location"].removesuffix("/result")
    until(lambda: httpx.get(job).json()["state"] == "succeeded", "the job with odd text succeeds")


def memory(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)
