"""One set of answers, as every protocol sends them, with the expected completion, written once.

A speaker puts an answer into the wire form of its protocol; the completion must not depend on the speaker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from understudy.models.failure import FailureClass
from understudy.worker.providers.base import Answer, BadAnswer, Call, Usage
from understudy.worker.providers.registry import ADAPTERS, adapter_for

PROTOCOLS = tuple(ADAPTERS)
MODELS = {"openai": "gpt-x", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-3-flash", "bedrock": "amazon.nova"}
JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


@dataclass(frozen=True)
class Said:
    """`fresh` input tokens were neither read from the cache nor written to it; `output` is without reasoning."""

    text: str = ""
    thought: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    ending: str = "stop"
    fresh: int = 7
    cached: int = 0
    written: int = 0
    output: int = 3
    reasoning: int = 0


def openai_says(said: Said) -> dict[str, Any]:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": orjson.dumps(arguments).decode()}}
        for call_id, name, arguments in said.calls
    ]
    message = {"role": "assistant", "content": said.text, "reasoning_content": said.thought, "tool_calls": calls}
    return {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": said.ending}],
        "usage": {
            "prompt_tokens": said.fresh + said.cached + said.written,
            "completion_tokens": said.output + said.reasoning,
            "prompt_tokens_details": {"cached_tokens": said.cached, "cache_write_tokens": said.written},
            "completion_tokens_details": {"reasoning_tokens": said.reasoning},
        },
    }


CLAUDE_ENDINGS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def anthropic_says(said: Said) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    if said.thought:
        blocks.append({"type": "thinking", "thinking": said.thought, "signature": "s"})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    blocks += [{"type": "tool_use", "id": i, "name": name, "input": arguments} for i, name, arguments in said.calls]
    return {
        "id": "x",
        "type": "message",
        "model": "m",
        "content": blocks,
        "stop_reason": CLAUDE_ENDINGS.get(said.ending, said.ending),
        "usage": {
            "input_tokens": said.fresh,
            "cache_read_input_tokens": said.cached,
            "cache_creation_input_tokens": said.written,
            "output_tokens": said.output + said.reasoning,
            "output_tokens_details": {"thinking_tokens": said.reasoning},
        },
    }


GEMINI_ENDINGS = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}


def gemini_says(said: Said) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if said.thought:
        parts.append({"text": said.thought, "thought": True})
    if said.text:
        parts.append({"text": said.text})
    parts += [{"functionCall": {"id": i, "name": name, "args": arguments}} for i, name, arguments in said.calls]
    reason = GEMINI_ENDINGS.get(said.ending, said.ending)
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason}],
        "responseId": "x",
        "modelVersion": "m",
        "usageMetadata": {
            "promptTokenCount": said.fresh + said.cached + said.written,
            "cachedContentTokenCount": said.cached,
            "candidatesTokenCount": said.output,
            "thoughtsTokenCount": said.reasoning,
        },
    }


BEDROCK_ENDINGS = {**CLAUDE_ENDINGS, "content_filter": "guardrail_intervened"}


def bedrock_says(said: Said) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    if said.thought:
        blocks.append({"reasoningContent": {"reasoningText": {"text": said.thought}}})
    if said.text:
        blocks.append({"text": said.text})
    blocks += [{"toolUse": {"toolUseId": i, "name": name, "input": arguments}} for i, name, arguments in said.calls]
    return {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": BEDROCK_ENDINGS.get(said.ending, said.ending),
        "usage": {
            "inputTokens": said.fresh,
            "outputTokens": said.output + said.reasoning,
            "cacheReadInputTokens": said.cached,
            "cacheWriteInputTokens": said.written,
        },
    }


SPEAKERS: dict[str, Callable[[Said], dict[str, Any]]] = {
    "openai": openai_says,
    "anthropic": anthropic_says,
    "gemini": gemini_says,
    "bedrock": bedrock_says,
}


def read(protocol: str, body: Any, request: dict[str, Any] | None = None) -> Answer:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    call = Call(protocol, MODELS[protocol], request or {})
    return adapter_for(protocol).answer(call, 200, {"Date": "Sun, 22 Nov 2026 17:00:00 GMT"}, content)


def heard(protocol: str, said: Said, request: dict[str, Any] | None = None) -> Answer:
    return read(protocol, SPEAKERS[protocol](said), request)


every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
every_translation = pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "openai"])


@every_protocol
def test_text_becomes_the_content_of_a_chat_completion(protocol: str) -> None:
    completion = heard(protocol, Said(text="Hello")).completion
    assert completion["object"] == "chat.completion" and completion["model"] and completion["id"]
    choice = completion["choices"][0]
    assert choice["index"] == 0 and choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": "Hello", "refusal": None}


@every_protocol
def test_tool_calls_have_ids_names_and_arguments_in_a_string(protocol: str) -> None:
    said = Said(text="Let me see", calls=(("c1", "weather", {"city": "Rom"}), ("c2", "time", {})), ending="tool_calls")
    choice = heard(protocol, said).completion["choices"][0]
    calls = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "Let me see"
    assert [(call["id"], call["type"], call["function"]["name"]) for call in calls] == [
        ("c1", "function", "weather"),
        ("c2", "function", "time"),
    ]
    assert [orjson.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Rom"}, {}]


@every_protocol
def test_tool_calls_without_text_have_null_content(protocol: str) -> None:
    said = Said(calls=(("c1", "weather", {}),), ending="tool_calls")
    assert not heard(protocol, said).completion["choices"][0]["message"]["content"]


@every_protocol
def test_a_finish_of_stop_with_tool_calls_is_tool_calls(protocol: str) -> None:
    said = Said(calls=(("c1", "weather", {}),), ending="stop")
    assert heard(protocol, said).completion["choices"][0]["finish_reason"] == "tool_calls"


@every_protocol
def test_a_call_without_an_id_gets_the_same_one_whenever_it_is_read(protocol: str) -> None:
    said = Said(calls=(("", "weather", {}), ("", "weather", {})), ending="tool_calls")
    first, again = (heard(protocol, said).completion["choices"][0]["message"]["tool_calls"] for _ in range(2))
    assert first == again and first[0]["id"] and first[0]["id"] != first[1]["id"]


@every_protocol
def test_reasoning_is_apart_from_the_content(protocol: str) -> None:
    message = heard(protocol, Said(text="4", thought="2+2")).completion["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("4", "2+2")


@every_protocol
def test_input_includes_the_cache_and_output_the_reasoning(protocol: str) -> None:
    said = Said(text="x", fresh=10, cached=100, written=1_000, output=5, reasoning=20)
    answer = heard(protocol, said)
    counts_reasoning, counts_writes = protocol != "bedrock", protocol != "gemini"
    assert answer.usage == Usage(1_110, 25, 100, 1_000 if counts_writes else 0, 20 if counts_reasoning else 0)
    usage = answer.completion["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (1_110, 25, 1_135)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 100
    assert answer.raw_usage


@every_protocol
@pytest.mark.parametrize("ending", ["length", "content_filter"])
def test_endings_that_are_known_keep_what_was_said(protocol: str, ending: str) -> None:
    answer = heard(protocol, Said(text="Half of", ending=ending))
    choice = answer.completion["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == (ending, "Half of")
    assert answer.raw_finish


@every_protocol
@pytest.mark.parametrize(
    "ending", ["a_new_reason", "error", "pause_turn", "MALFORMED_FUNCTION_CALL", "malformed_tool_use"]
)
def test_an_ending_that_is_not_known_or_not_final_is_a_failure(protocol: str, ending: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        heard(protocol, Said(text="secret words", ending=ending))
    assert caught.value.cls is FailureClass.BAD_RESPONSE and "secret" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["openai", "anthropic", "bedrock"])
def test_an_ending_for_tool_calls_without_any_is_a_failure(protocol: str) -> None:
    with pytest.raises(BadAnswer):
        heard(protocol, Said(text="x", ending="tool_calls"))


@every_translation
def test_an_unfinished_answer_still_says_what_it_cost(protocol: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        heard(protocol, Said(text="x", ending="a_new_reason", fresh=9))
    assert caught.value.answer is not None and caught.value.answer.usage.input_tokens == 9


@every_translation
@pytest.mark.parametrize("text", ['{"a": "one"}', "not JSON", "[]"])
def test_an_answer_that_breaks_its_json_schema_is_a_failure(protocol: str, text: str) -> None:
    with pytest.raises(BadAnswer, match="response_format"):
        heard(protocol, Said(text=text), {"response_format": JSON_SCHEMA})


@every_protocol
def test_an_answer_that_keeps_its_json_schema_passes(protocol: str) -> None:
    answer = heard(protocol, Said(text='{"a": 1}'), {"response_format": JSON_SCHEMA})
    assert answer.completion["choices"][0]["message"]["content"] == '{"a": 1}'


NO_ANSWERS = {
    "empty": b"",
    "blank lines": b"\n\n  \n",
    "a web page": b"<html>502</html>",
    "cut off": b'{"id": "x", "content": [{"type": "te',
    "JSON and then more": b'{"id":"x"}data: [DONE]',
    "an event stream": b'event: error\ndata: {"type":"error"}\n\n',
    "an error": b'{"error": {"message": "overloaded", "code": 503}}',
    "Anthropic's error": b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
    "another object": b'{"ok": true}',
    "only a usage": b'{"usageMetadata": {"promptTokenCount": 1}}',
    "a list": b"[1, 2]",
    "a string": b'"hello"',
    "null": b"null",
    "broken UTF-8": b'\xff\xfe{"a',
}


@every_protocol
def test_an_error_next_to_an_answer_is_a_failure(protocol: str) -> None:
    error = {"message": "The upstream went away", "code": 502}
    with pytest.raises(BadAnswer):
        read(protocol, {**SPEAKERS[protocol](Said(text="Hello")), "error": error})


@every_protocol
@pytest.mark.parametrize("content", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_a_success_without_an_answer_is_a_failure(protocol: str, content: bytes) -> None:
    with pytest.raises(BadAnswer) as caught:
        read(protocol, content)
    assert caught.value.cls is FailureClass.BAD_RESPONSE


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@every_translation
@settings(examples(200), derandomize=True)
@given(data=st.data())
def test_whatever_a_field_holds_it_is_an_answer_or_a_bad_answer(protocol: str, data: st.DataObject) -> None:
    said = Said(text="x", thought="y", calls=(("c1", "weather", {"city": "Rom"}),), ending="tool_calls")
    body = SPEAKERS[protocol](said)
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        answer = read(protocol, body)
    except BadAnswer:
        return
    orjson.dumps(answer.completion)
