"""Chat completions held open: the OpenAI SDK against the application in process, on real ledgers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import openai
import orjson
import pytest
from api_help import Served, served
from ledger_help import call, new_worker

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import ResultRecord, Settled
from understudy.models.jobs.views import JobView
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.models.store.work.jobs import JobFilter
from understudy.producer.api.jobs import submission

SETTINGS = Settings.model_validate({"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
SAY: Any = {"model": "lead/large", "messages": [{"role": "user", "content": "Say hello."}]}
TOOL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
LONG_S = 30.0
_ALL = JobFilter()


def completion(*messages: dict[str, Any]) -> str:
    choices = [
        {"index": number, "message": {"role": "assistant", **message}, "finish_reason": "stop", "logprobs": None}
        for number, message in enumerate(messages)
    ]
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "large", "choices": choices}
    return orjson.dumps({**whole, "usage": USAGE}).decode()


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    async with served(store, time.time, SETTINGS) as up:
        yield up


@pytest.fixture
async def sdk(api: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with api.client() as http:
        yield openai.AsyncOpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none", http_client=http, max_retries=0)


async def only_job(store: Store) -> JobView:
    async with asyncio.timeout(LONG_S):
        while not (jobs := await store.jobs.page("default", _ALL, limit=2)):
            await asyncio.sleep(0.01)
    (job,) = jobs
    return job


async def end(store: Store, status: int, body: str) -> None:
    """A worker answers the one job there is."""
    job = await only_job(store)
    worker = await new_worker(store)
    (started,) = await store.claims.start(worker, [job.id])
    good = status == 200
    record = ResultRecord(status, body, None, provider="lead", model="large")
    state = JobState.SUCCEEDED if good else JobState.FAILED
    calls = [call(started, None if good else FailureClass.SERVER)]
    await store.claims.settle(worker, [Settled(started.id, "", started.claim_no, state, calls, record)])


async def answered(request: Awaitable[Any], store: Store, status: int, body: str) -> Any:
    asked = asyncio.ensure_future(request)
    await end(store, status, body)
    return await asked


async def test_the_answer_comes_when_the_job_has_ended(store: Store, sdk: openai.AsyncOpenAI) -> None:
    answer = await answered(sdk.chat.completions.create(**SAY), store, 200, completion({"content": "Hello."}))
    assert answer.choices[0].message.content == "Hello."
    assert (await only_job(store)).priority == 0


async def test_a_failure_has_the_providers_status_and_words(store: Store, sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="too long"):
        await answered(sdk.chat.completions.create(**SAY), store, 400, '{"error": {"message": "too long"}}')


async def test_a_stream_gives_all_choices_calls_and_refusals(store: Store, api: Served) -> None:
    text = "Hello. " * 100
    body = completion({"content": text}, {"content": None, "tool_calls": [TOOL]}, {"content": None, "refusal": "No."})
    async with api.client() as http:
        asked = {**SAY, "stream": True, "stream_options": {"include_usage": True}}
        response = await answered(http.post("/v1/chat/completions", json=asked), store, 200, body)
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[0].startswith(":") and lines[-1] == "data: [DONE]"
    told = [orjson.loads(line[6:]) for line in lines[:-1] if line.startswith("data: ")]
    deltas = [(each["index"], each["delta"]) for chunk in told for each in chunk["choices"]]
    assert "".join(delta.get("content") or "" for index, delta in deltas if index == 0) == text
    assert [delta["tool_calls"] for index, delta in deltas if "tool_calls" in delta] == [[{**TOOL, "index": 0}]]
    assert [delta["refusal"] for index, delta in deltas if "refusal" in delta] == ["No."]
    assert told[-1]["choices"] == [] and told[-1]["usage"] == USAGE


async def test_an_error_after_the_headers_is_raised_by_the_sdk(store: Store, sdk: openai.AsyncOpenAI) -> None:
    async def streamed() -> None:
        async for _ in await sdk.chat.completions.create(**SAY, stream=True):
            pass

    with pytest.raises(openai.APIError, match="too long"):
        await answered(streamed(), store, 400, '{"error": {"message": "too long"}}')


async def test_in_the_background_the_job_is_answered_at_once(api: Served) -> None:
    async with api.client() as http:
        response = await http.post("/v1/chat/completions", json={**SAY, "background": True})
    assert response.status_code == 202
    assert response.headers["location"].endswith(f"/v1/jobs/{response.json()['id']}/result")
    assert response.json()["priority"] == "normal"


async def test_who_is_held_too_long_is_told_and_the_job_cancelled(store: Store) -> None:
    short = SETTINGS.model_copy(update={"api": SETTINGS.api.model_copy(update={"hold_s": 0.05})})
    async with served(store, time.time, short) as up, up.client() as http:
        response = await http.post("/v1/chat/completions", json=SAY)
        assert response.status_code == 504
        await until_cancelled(store)


async def test_the_job_of_a_caller_that_goes_away_is_cancelled(store: Store, api: Served) -> None:
    await caller_leaves(store, api)
    await until_cancelled(store)


async def test_a_caller_that_goes_away_while_its_job_is_being_accepted_leaves_none(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(submission, "stage", never)
    await caller_leaves(store, api)
    await until_cancelled(store)


async def caller_leaves(store: Store, api: Served) -> None:
    """As soon as its job is in the ledger."""
    async with api.client() as http:
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=SAY))
        await only_job(store)
        asked.cancel()
        await asyncio.wait([asked])


async def until_cancelled(store: Store) -> None:
    async with asyncio.timeout(LONG_S):
        while (await only_job(store)).state != JobState.CANCELLED:
            await asyncio.sleep(0.01)
