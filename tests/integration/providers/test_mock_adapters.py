"""Our adapters and client against the fake providers: each understands the other."""

from typing import Any

import httpx
import pytest

from understudy.models.failure import FailureClass
from understudy.worker.mock import Fail, MockServer, running_mock
from understudy.worker.providers.base import Answer, BadAnswer, Call, Endpoint
from understudy.worker.providers.client import ProviderClient
from understudy.worker.providers.registry import adapter_for

PROTOCOLS = ("openai", "anthropic", "gemini", "bedrock")
MODELS = {"anthropic": "claude-sonnet-4-5"}  # a Claude that can be forced to call a tool
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


async def answer_of(mock: MockServer, protocol: str, timeout_s: float = 5.0, **body: Any) -> Answer:
    adapter = adapter_for(protocol)
    call = Call(protocol, MODELS.get(protocol, "m-1"), {"messages": MESSAGES, **body})
    endpoint = Endpoint(mock.base_url("alpha") + ("/v1" if protocol == "openai" else ""), secret="sk-secret-7777")
    async with ProviderClient(max_connections=10) as client:
        status, headers, content = await client.send(adapter.request(call, endpoint), endpoint, timeout_s)
    assert status == 200, content
    return adapter.answer(call, status, headers, content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_adapter_reads_the_mocks_answer_and_its_usage(protocol: str) -> None:
    script = {"answers": {"text": "{prompt}!", "cached_share": 0.5, "reasoning_tokens": 3}}
    async with running_mock(script) as mock:
        answer = await answer_of(mock, protocol)
        totals = mock.stats()["providers"]["alpha"]
    assert answer.completion["choices"][0]["message"]["content"] == "hello!"
    assert answer.completion["choices"][0]["finish_reason"] == "stop"
    assert answer.usage.input_tokens == totals["input_tokens"]
    assert answer.usage.output_tokens == totals["output_tokens"] == 5
    assert answer.usage.cached_tokens == totals["input_tokens"] // 2
    assert totals["keys"] == {"…7777": {"200": 1}}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_adapter_reads_the_mocks_tool_call(protocol: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    async with running_mock() as mock:
        answer = await answer_of(mock, protocol, tools=[tool], tool_choice="required")
    choice = answer.completion["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["f"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_answer_cut_at_max_tokens_is_length_to_an_adapter(protocol: str) -> None:
    async with running_mock({"answers": {"output_tokens": 100}}) as mock:
        answer = await answer_of(mock, protocol, max_tokens=7)
    assert answer.completion["choices"][0]["finish_reason"] == "length"
    assert answer.usage.output_tokens == 7


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fail", [fail for fail in Fail if fail.cls is FailureClass.BAD_RESPONSE])
async def test_a_200_without_an_answer_is_a_bad_response_to_an_adapter(fail: Fail, protocol: str) -> None:
    async with running_mock({"rules": [{"fail": fail}]}) as mock:
        with pytest.raises(BadAnswer) as caught:
            await answer_of(mock, protocol)
    assert caught.value.cls is FailureClass.BAD_RESPONSE


async def test_geminis_blocked_prompt_is_a_content_filter_to_its_adapter() -> None:
    async with running_mock({"rules": [{"fail": "content_filter"}]}) as mock:
        with pytest.raises(BadAnswer) as caught:
            await answer_of(mock, "gemini")
    assert caught.value.cls is FailureClass.CONTENT_FILTER


@pytest.mark.parametrize("fail", [fail for fail in Fail if fail.cls is FailureClass.TIMEOUT])
async def test_a_call_that_never_ends_or_breaks_off_is_an_error_of_the_transport(fail: Fail) -> None:
    async with running_mock({"rules": [{"fail": fail}]}) as mock:
        with pytest.raises((httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError)):
            await answer_of(mock, "openai", timeout_s=0.5)
