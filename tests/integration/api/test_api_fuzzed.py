"""Random and mutated requests to the application: each is answered within a second, none with an internal error, and
the next one is served."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from api_help import bearer, key_for, served
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ledger_help import sqlite_ledger

from examples import examples
from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings

SETTINGS = Settings.model_validate({"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
MOST_S = 1.0
TOGETHER = 40

PLACES = [
    "/v1/jobs",
    "/v1/jobs:batch",
    "/v1/batches",
    "/v1/keys",
    "/v1/webhooks/endpoints",
    "/v1/files",
    "/v1/jobs/job_x/ack",
    "/v1/batches/batch_x/retry",
]
CHAT = {"model": "lead/m", "messages": [{"role": "user", "content": "x"}]}
SOUND: dict[str, dict[str, Any]] = {
    "/v1/jobs": {
        **CHAT,
        "accept": ["json_schema"],
        "metadata": {"a": "b"},
        "fallbacks": ["lead/n"],
        "priority": "bulk",
    },
    "/v1/jobs:batch": {"jobs": [CHAT, {**CHAT, "custom_id": "a", "callback_url": "https://hooks.example.com/"}]},
    "/v1/batches": {"input_file_id": "file_x", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "/v1/keys": {"name": "k", "scopes": ["read"], "expires_in_s": 60},
    "/v1/webhooks/endpoints": {"url": "https://hooks.example.com/x", "events": ["batch.completed"]},
}
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["\0", "\x1b]0;x\x07", "a" * 50_000, "http://[", "{{", "\u202e", "-1", "9" * 400]),
    st.sampled_from([[], {}, [[]] * 50, {"type": "json_schema", "json_schema": {"schema": {"pattern": "(a{9}){99}"}}}]),
)
words = st.sampled_from(
    ["messages", "model", "accept", "fallbacks", "metadata", "url", "endpoint", "jobs", "scopes", "n", "input", "stop"]
)


@st.composite
def mutated(draw: st.DrawFn, body: dict[str, Any]) -> bytes:
    """A valid body with odd, missing, nested, truncated or byte-swapped parts."""
    changed = {**body, **draw(st.dictionaries(words | st.sampled_from([*body, "x"]), odd, max_size=3))}
    for gone in draw(st.lists(st.sampled_from([*body, "x"]), max_size=1)):
        changed.pop(gone, None)
    written = orjson.dumps(changed)
    at = draw(st.integers(0, len(written)))
    depth = draw(st.sampled_from([0, 0, 0, 300, 100_000]))
    return draw(
        st.sampled_from(
            [
                written,
                written,
                written[:at],
                written[:at] + draw(st.binary(max_size=4)) + written[at + 1 :],
                b"[" * depth + written + b"]" * depth,
                written.replace(b":", b":" + b'{"a":' * depth, 1),
            ]
        )
    )


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    place = draw(st.sampled_from(PLACES))
    kinds = ["application/json"] * 12 + [
        "",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/json; charset=x",
    ]
    headers = {"content-type": draw(st.sampled_from(kinds))}
    if draw(st.booleans()):
        headers["idempotency-key"] = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
    content = draw(mutated(SOUND.get(place, CHAT)) | st.binary(max_size=200))
    return {"method": "POST", "url": place, "headers": headers, "content": content}


@pytest.mark.timeout(120)
@settings(examples(40), phases=[Phase.generate])  # the failing request is shown; shrinking it would take minutes
@given(st.lists(requests(), min_size=TOGETHER, max_size=TOGETHER))
def test_every_request_is_answered_and_the_next_one_served(
    tmp_path_factory: pytest.TempPathFactory, sent: list[dict[str, Any]]
) -> None:
    asyncio.run(_answered(tmp_path_factory.mktemp("fuzzed"), sent))


async def _answered(folder: Path, sent: list[dict[str, Any]]) -> None:
    async with sqlite_ledger(folder) as store, served(store, time.time, SETTINGS) as api:
        transport = httpx.ASGITransport(api.app, raise_app_exceptions=False, client=("127.0.0.1", 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            http.headers.update(bearer(await key_for(store, Scope.ADMIN)))
            for each in sent:
                began = time.thread_time()
                answer = await http.request(**each)
                assert time.thread_time() - began < MOST_S
                assert answer.status_code < 500, (each, answer.text)
                assert (await http.get("/v1/jobs")).status_code == 200
