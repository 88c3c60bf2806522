"""One set of requests in every protocol: what the wire request must contain, or why the protocol cannot express it.

Scenarios are written once, with the expected result for each protocol; a new adapter adds a column.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from understudy.worker.providers.base import Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.registry import ADAPTERS, adapter_for

PROTOCOLS = tuple(ADAPTERS)
MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-3-flash-preview",
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
}
ENDPOINT = Endpoint("https://provider.example", secret="the-key")
ABSENT = object()
PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "additionalProperties": False}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}


def asked(protocol: str, body: dict[str, Any], model: str = "") -> WireRequest:
    call = Call(protocol, model or MODELS[protocol], {"messages": [{"role": "user", "content": "hi"}], **body})
    return adapter_for(protocol).request(call, ENDPOINT)


def at(document: Any, path: str) -> Any:
    """The value at `a.0.b`; ABSENT when there is none."""
    for step in path.split("."):
        if isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        elif isinstance(document, dict) and step in document:
            document = document[step]
        else:
            return ABSENT
    return document


@dataclass(frozen=True)
class Scenario:
    """`wire`: per protocol, values by their path in the wire request, or the word a refusal must contain."""

    name: str
    body: dict[str, Any]
    wire: dict[str, dict[str, Any] | str]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def called(*ids: str) -> dict[str, Any]:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        for call_id in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call_id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


TWO_RESULTS = [user("hi"), called("c1", "c2"), result("c1", "sunny"), result("c2", '{"t": 3}'), user("so?")]

SCENARIOS = [
    Scenario(
        "system and developer messages are joined in order wherever they stand",
        {
            "messages": [
                {"role": "system", "content": "one"},
                user("hi"),
                {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            ]
        },
        {
            "openai": {"messages.0.content": "one", "messages.2.role": "developer"},
            "anthropic": {"system.0.text": "one", "system.1.text": "two", "messages.1": ABSENT},
            "gemini": {"systemInstruction.parts": [{"text": "one"}, {"text": "two"}], "contents.1": ABSENT},
            "bedrock": {"system": [{"text": "one"}, {"text": "two"}], "messages.1": ABSENT},
        },
    ),
    Scenario(
        "turns alternate: what one side says in several messages becomes one turn",
        {"messages": [user("a"), user("b"), {"role": "assistant", "content": "c"}, user("d")]},
        {
            "openai": {"messages.1.content": "b"},
            "anthropic": {"messages.0.content.1.text": "b", "messages.1.role": "assistant", "messages.3": ABSENT},
            "gemini": {"contents.0.parts.1.text": "b", "contents.1.role": "model", "contents.3": ABSENT},
            "bedrock": {"messages.0.content.1.text": "b", "messages.1.role": "assistant", "messages.3": ABSENT},
        },
    ),
    Scenario(
        "a conversation that the assistant opens gets a user turn before it",
        {"messages": [{"role": "assistant", "content": "Hello!"}, user("hi")]},
        {
            "openai": {"messages.0.role": "assistant"},
            "anthropic": {"messages.0.role": "user", "messages.1.content.0.text": "Hello!"},
            "gemini": {"contents.0.role": "user", "contents.1.parts.0.text": "Hello!"},
            "bedrock": {"messages.0.role": "user", "messages.1.content.0.text": "Hello!"},
        },
    ),
    Scenario(
        "a conversation that ends with the assistant is not taken for the beginning of the answer",
        {"messages": [user("hi"), {"role": "assistant", "content": "Hello!"}]},
        {
            "openai": {"messages.1.role": "assistant", "messages.2": ABSENT},
            "anthropic": {"messages.1.role": "assistant", "messages.2.role": "user"},
            "gemini": {"contents.1.role": "model", "contents.2.role": "user"},
            "bedrock": {"messages.1.role": "assistant", "messages.2.role": "user"},
        },
    ),
    Scenario(
        "a lone system message is what the model is asked",
        {"messages": [{"role": "system", "content": "Say hi"}]},
        {
            "openai": {"messages.0.role": "system"},
            "anthropic": {"messages.0": {"role": "user", "content": [{"type": "text", "text": "Say hi"}]}},
            "gemini": {"contents": [{"role": "user", "parts": [{"text": "Say hi"}]}], "systemInstruction": ABSENT},
            "bedrock": {"messages": [{"role": "user", "content": [{"text": "Say hi"}]}], "system": ABSENT},
        },
    ),
    Scenario(
        "consecutive tool results form one user turn, before what the user says",
        {"messages": TWO_RESULTS, "tools": [WEATHER]},
        {
            "openai": {"messages.3.tool_call_id": "c2"},
            "anthropic": {
                "messages.1.content.0": {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
                "messages.2.content.0.tool_use_id": "c1",
                "messages.2.content.1.tool_use_id": "c2",
                "messages.2.content.2.text": "so?",
            },
            "gemini": {
                "contents.1.parts.0.functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}},
                "contents.2.parts.0.functionResponse.response": {"output": "sunny"},
                "contents.2.parts.1.functionResponse": {"id": "c2", "name": "weather", "response": {"t": 3}},
                "contents.2.parts.2.text": "so?",
            },
            "bedrock": {
                "messages.1.content.1.toolUse.input": {"city": "Rome"},
                "messages.2.content.0.toolResult": {"toolUseId": "c1", "content": [{"text": "sunny"}]},
                "messages.2.content.2.text": "so?",
            },
        },
    ),
    Scenario(
        "a tool's schema and description are kept",
        {"tools": [WEATHER]},
        {
            "openai": {"tools.0": WEATHER},
            "anthropic": {
                "tools.0.name": "weather",
                "tools.0.input_schema": WEATHER["function"]["parameters"],
                "tool_choice": {"type": "auto"},
            },
            "gemini": {
                "tools.0.functionDeclarations.0.description": "Weather of a city",
                "tools.0.functionDeclarations.0.parametersJsonSchema": WEATHER["function"]["parameters"],
            },
            "bedrock": {"toolConfig.tools.0.toolSpec.inputSchema.json": WEATHER["function"]["parameters"]},
        },
    ),
    Scenario(
        "tool_choice required",
        {"tools": [WEATHER], "tool_choice": "required"},
        {
            "openai": {"tool_choice": "required"},
            "anthropic": {"tool_choice.type": "any"},
            "gemini": {"toolConfig.functionCallingConfig.mode": "ANY"},
            "bedrock": {"toolConfig.toolChoice": {"any": {}}},
        },
    ),
    Scenario(
        "tool_choice none",
        {"tools": [WEATHER], "tool_choice": "none"},
        {
            "openai": {"tool_choice": "none"},
            "anthropic": {"tool_choice": {"type": "none"}},
            "gemini": {"toolConfig.functionCallingConfig.mode": "NONE"},
            "bedrock": {"toolConfig": ABSENT},
        },
    ),
    Scenario(
        "tool_choice of one function",
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {
            "openai": {"tool_choice.function.name": "weather"},
            "anthropic": {"tool_choice": {"type": "tool", "name": "weather"}},
            "gemini": {"toolConfig.functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
            "bedrock": {"toolConfig.toolChoice": {"tool": {"name": "weather"}}},
        },
    ),
    Scenario(
        "no parallel tool calls",
        {"tools": [WEATHER], "parallel_tool_calls": False},
        {
            "openai": {"parallel_tool_calls": False},
            "anthropic": {"tool_choice.disable_parallel_tool_use": True},
            "gemini": "parallel_tool_calls",
            "bedrock": "parallel_tool_calls",
        },
    ),
    Scenario(
        "an answer in a JSON schema",
        {"response_format": JSON_SCHEMA},
        {
            "openai": {"response_format": JSON_SCHEMA},
            "anthropic": {
                "output_config.format.type": "json_schema",
                "output_config.format.schema.properties.a": {"type": "integer"},
            },
            "gemini": {
                "generationConfig.responseMimeType": "application/json",
                "generationConfig.responseJsonSchema": SCHEMA,
            },
            "bedrock": {
                "toolConfig.tools.0.toolSpec.inputSchema.json": SCHEMA,
                "toolConfig.toolChoice.tool.name": "give_final_answer",
            },
        },
    ),
    Scenario(
        "an image inside the request",
        {"messages": [user([{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": PNG}}])]},
        {
            "openai": {"messages.0.content.1.image_url.url": PNG},
            "anthropic": {
                "messages.0.content.1.source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
            },
            "gemini": {"contents.0.parts.1.inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
            "bedrock": {"messages.0.content.1.image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}},
        },
    ),
    Scenario(
        "an image at an address",
        {"messages": [user([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])]},
        {
            "openai": {"messages.0.content.0.image_url.url": "https://example.com/a.png"},
            "anthropic": {"messages.0.content.0.source": {"type": "url", "url": "https://example.com/a.png"}},
            "gemini": "address",
            "bedrock": "address",
        },
    ),
    Scenario(
        "a PDF",
        {"messages": [user([{"type": "file", "file": {"filename": "a_b.pdf", "file_data": PDF}}])]},
        {
            "openai": {"messages.0.content.0.file.file_data": PDF},
            "anthropic": {"messages.0.content.0.type": "document", "messages.0.content.0.source.data": "JVBERi0="},
            "gemini": {"contents.0.parts.0.inlineData.mimeType": "application/pdf"},
            "bedrock": {"messages.0.content.0.document.format": "pdf", "messages.0.content.0.document.name": "a b 0-0"},
        },
    ),
    Scenario(
        "a sound",
        {"messages": [user([{"type": "input_audio", "input_audio": {"format": "wav", "data": "UklGRg=="}}])]},
        {
            "openai": {"messages.0.content.0.type": "input_audio"},
            "anthropic": "input_audio",
            "gemini": {"contents.0.parts.0.inlineData.mimeType": "audio/wav"},
            "bedrock": "input_audio",
        },
    ),
    Scenario(
        "a file that only one provider has",
        {"messages": [user([{"type": "file", "file": {"file_id": "file-1"}}])]},
        {
            "openai": {"messages.0.content.0.file.file_id": "file-1"},
            "anthropic": "file_id",
            "gemini": "file_id",
            "bedrock": "file_id",
        },
    ),
    Scenario(
        "stop sequences, as a list or a single one",
        {"stop": "END"},
        {
            "openai": {"stop": "END"},
            "anthropic": {"stop_sequences": ["END"]},
            "gemini": {"generationConfig.stopSequences": ["END"]},
            "bedrock": {"inferenceConfig.stopSequences": ["END"]},
        },
    ),
    Scenario(
        "a stop sequence of white space, which Claude rejects",
        {"stop": ["\n"]},
        {
            "openai": {"stop": ["\n"]},
            "anthropic": "stop",
            "gemini": {"generationConfig.stopSequences": ["\n"]},
            "bedrock": "stop",
        },
    ),
    Scenario(
        "more stop sequences than Gemini takes",
        {"stop": ["a", "b", "c", "d", "e", "f"]},
        {
            "openai": {"stop.5": "f"},
            "anthropic": {"stop_sequences.5": "f"},
            "gemini": "stop",
            "bedrock": {"inferenceConfig.stopSequences.5": "f"},
        },
    ),
    Scenario(
        "a limit of tokens",
        {"max_completion_tokens": 50},
        {
            "openai": {"max_completion_tokens": 50},
            "anthropic": {"max_tokens": 50},
            "gemini": {"generationConfig.maxOutputTokens": 50},
            "bedrock": {"inferenceConfig.maxTokens": 50},
        },
    ),
    Scenario(
        "no limit of tokens, which Anthropic requires",
        {},
        {
            "openai": {"max_tokens": ABSENT, "max_completion_tokens": ABSENT},
            "anthropic": {"max_tokens": 16_384},
            "gemini": {"generationConfig": ABSENT},
            "bedrock": {"inferenceConfig": ABSENT},
        },
    ),
    Scenario(
        "a limit above what the model can say is lowered to it",
        {"max_tokens": 1_000_000},
        {
            "openai": {"max_tokens": 1_000_000},
            "anthropic": {"max_tokens": 64_000},
            "gemini": {"generationConfig.maxOutputTokens": 65_536},
            "bedrock": {"inferenceConfig.maxTokens": 64_000},
        },
    ),
    Scenario(
        "a temperature of 0 is sent",
        {"temperature": 0},
        {
            "openai": {"temperature": 0},
            "anthropic": {"temperature": 0},
            "gemini": {"generationConfig.temperature": 0},
            "bedrock": {"inferenceConfig.temperature": 0},
        },
    ),
    Scenario(
        "several choices",
        {"n": 2},
        {"openai": {"n": 2}, "anthropic": "n ", "gemini": {"generationConfig.candidateCount": 2}, "bedrock": "n "},
    ),
    Scenario(
        "more choices than anybody but OpenAI gives",
        {"n": 9},
        {"openai": {"n": 9}, "anthropic": "n ", "gemini": "n ", "bedrock": "n "},
    ),
    Scenario(
        "log probabilities",
        {"logprobs": True, "top_logprobs": 2},
        {
            "openai": {"logprobs": True},
            "anthropic": "logprobs",
            "gemini": {"generationConfig.responseLogprobs": True, "generationConfig.logprobs": 2},
            "bedrock": "logprobs",
        },
    ),
    Scenario(
        "a field that nobody knows goes to OpenAI's protocol and counts as meaning elsewhere",
        {"shape_of_answer": "round"},
        {
            "openai": {"shape_of_answer": "round"},
            "anthropic": "shape_of_answer",
            "gemini": "shape_of_answer",
            "bedrock": "shape_of_answer",
        },
    ),
    Scenario(
        "values that say the default change nothing",
        {"n": 1, "logprobs": False, "stream": False, "tools": [], "response_format": {"type": "text"}, "stop": None},
        {"openai": {}, "anthropic": {}, "gemini": {}, "bedrock": {}},
    ),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_protocol_says_the_same(scenario: Scenario, protocol: str) -> None:
    expected = scenario.wire[protocol]
    if isinstance(expected, str):
        with pytest.raises(CannotExpress, match=expected):
            asked(protocol, scenario.body)
        return
    wire = orjson.loads(asked(protocol, scenario.body).content)
    assert {path: at(wire, path) for path in expected} == expected


@pytest.mark.parametrize(
    "protocol, call_path, result_path",
    [
        ("anthropic", "messages.1.content.0.id", "messages.2.content.0.tool_use_id"),
        ("gemini", "contents.1.parts.0.functionCall.id", "contents.2.parts.0.functionResponse.id"),
        ("bedrock", "messages.1.content.0.toolUse.toolUseId", "messages.2.content.0.toolResult.toolUseId"),
    ],
)
def test_an_id_that_others_would_refuse_is_replaced_in_call_and_result(
    protocol: str, call_path: str, result_path: str
) -> None:
    messages = [user("hi"), called("functions.weather:0"), result("functions.weather:0", "ok"), user("so?")]
    wire = orjson.loads(asked(protocol, {"messages": messages, "tools": [WEATHER]}).content)
    assert at(wire, call_path) == at(wire, result_path)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", at(wire, call_path))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_advice_never_stops_a_request_and_what_is_left_out_is_listed(protocol: str) -> None:
    advice = {"user": "u", "metadata": {"a": "b"}, "service_tier": "flex", "store": True, "safety_identifier": "s"}
    request = asked(protocol, advice)
    wire = orjson.loads(request.content)
    assert {name for name in advice if name not in wire} == set(request.dropped)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_is_translated_without_being_changed(protocol: str) -> None:
    body = {"messages": TWO_RESULTS, "tools": [WEATHER], "temperature": 0.5, "stop": ["a"], "max_tokens": 5}
    before = orjson.dumps(body)
    asked(protocol, body)
    assert orjson.dumps(body) == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_key_is_in_one_header_and_nowhere_else(protocol: str) -> None:
    request = asked(protocol, {})
    assert sum("the-key" in value for value in request.headers.values()) == 1
    assert "the-key" not in request.path and b"the-key" not in request.content


def test_anthropic_is_told_the_version_of_its_protocol() -> None:
    assert asked("anthropic", {}).headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_configured_headers_win(protocol: str) -> None:
    endpoint = Endpoint(
        "https://provider.example", None, headers={"Content-Type": "application/json; v=2", "X-Team": "t"}
    )
    request = adapter_for(protocol).request(Call(protocol, MODELS[protocol], {"messages": [user("hi")]}), endpoint)
    assert request.headers["content-type"] == "application/json; v=2" and request.headers["x-team"] == "t"


@pytest.mark.parametrize(
    "protocol, base_url, path",
    [
        ("anthropic", "https://api.anthropic.com", "/v1/messages"),
        ("anthropic", "https://gateway.example/anthropic/v1", "/messages"),
        (
            "gemini",
            "https://generativelanguage.googleapis.com",
            "/v1beta/models/gemini-3-flash-preview:generateContent",
        ),
        (
            "gemini",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google",
            "/models/gemini-3-flash-preview:generateContent",
        ),
        (
            "bedrock",
            "https://bedrock-runtime.us-east-1.amazonaws.com",
            "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
        ),
    ],
)
def test_paths_follow_the_base_url(protocol: str, base_url: str, path: str) -> None:
    call = Call(protocol, MODELS[protocol], {"messages": [user("hi")]})
    assert adapter_for(protocol).request(call, Endpoint(base_url)).path == path


@pytest.mark.parametrize("protocol", [protocol for protocol in PROTOCOLS if protocol != "openai"])
@pytest.mark.parametrize(
    "body, place",
    [
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, r"messages\[0\]"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [user([{"type": "hologram"}])]}, r"messages\[0\].content\[0\]"),
        ({"messages": [user([{"type": "text"}])]}, r"messages\[0\].content\[0\].text"),
        ({"messages": [user(5)]}, r"messages\[0\].content"),
        ({"messages": [user("  ")]}, "messages"),
        ({"messages": [user("a"), result("x", "y")]}, r"messages\[1\].tool_call_id"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,§"}}])]}, "base64"),
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\]"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_completion_tokens"),
        ({"stop": 5}, "stop"),
        ({"stream": True}, "stream"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "soup"}}}}, "response_format"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(protocol: str, body: dict[str, Any], place: str) -> None:
    with pytest.raises(CannotExpress, match=place):
        asked(protocol, body)
