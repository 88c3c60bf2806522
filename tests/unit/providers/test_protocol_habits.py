"""Peculiarities of single protocols: the traps of Anthropic, Gemini and Bedrock, each by name."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from understudy.models.failure import FailureClass
from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, Usage
from understudy.worker.providers.known import Claude
from understudy.worker.providers.registry import adapter_for
from understudy.worker.providers.structured import ANSWER_TOOL

ENDPOINT = Endpoint("https://provider.example", secret="k")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
OTHER_TOOL = {"type": "function", "function": {"name": "time", "strict": True}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
HI = {"role": "user", "content": "hi"}
NOVA = "amazon.nova-micro-v1:0"


def wire(protocol: str, model: str, **body: Any) -> dict[str, Any]:
    request = adapter_for(protocol).request(Call(protocol, model, {"messages": [HI], **body}), ENDPOINT)
    return {**orjson.loads(request.content), "dropped": request.dropped}


def read(protocol: str, body: dict[str, Any], model: str = "m", dialect: str = "", **request: Any) -> Answer:
    call = Call(dialect or protocol, model, {"messages": [HI], **request})
    return adapter_for(protocol).answer(call, 200, {}, orjson.dumps(body))


def choice_of(answer: Answer) -> dict[str, Any]:
    choice: dict[str, Any] = answer.completion["choices"][0]
    return choice


# Claude


@pytest.mark.parametrize(
    "model, version, most_output",
    [
        ("claude-3-haiku-20240307", (3, 0), 4_096),
        ("claude-3-5-sonnet-20241022", (3, 5), 8_192),
        ("claude-3-7-sonnet-latest", (3, 7), 64_000),
        ("claude-opus-4-20250514", (4, 0), 32_000),
        ("claude-sonnet-4-20250514", (4, 0), 64_000),
        ("claude-opus-4-1-20250805", (4, 1), 32_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", (4, 5), 64_000),
        ("claude-haiku-4-5@20251001", (4, 5), 64_000),
        ("claude-opus-4.7", (4, 7), 128_000),
        ("claude-sonnet-5", (5, 0), 128_000),
        ("claude-fable-5-1", (5, 1), 128_000),
        ("anthropic.claude-v2:1", (2, 1), 4_096),
        ("claude-latest", (99, 0), 128_000),
    ],
)
def test_the_generation_of_a_claude_is_read_from_its_name(
    model: str, version: tuple[int, int], most_output: int
) -> None:
    assert (Claude(model).version, Claude(model).most_output) == (version, most_output)


@pytest.mark.parametrize(
    "model, sent, dropped",
    [
        ("claude-3-5-haiku-latest", {"temperature": 1.0, "top_p": 0.5}, ()),
        ("claude-sonnet-4-5", {"temperature": 1.0}, ("top_p",)),
        ("claude-opus-4-7", {}, ("temperature", "top_p")),
        ("claude-sonnet-5", {}, ("temperature", "top_p")),
    ],
)
def test_each_generation_gets_the_sampling_it_takes(model: str, sent: dict[str, Any], dropped: tuple[str, ...]) -> None:
    request = wire("anthropic", model, temperature=1.7, top_p=0.5)
    assert {name: request[name] for name in ("temperature", "top_p") if name in request} == sent
    assert request["dropped"] == dropped


def test_thinking_is_passed_on_and_fixes_the_temperature() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    request = wire("anthropic", "claude-sonnet-4-5", thinking=thinking, temperature=0.3)
    assert request["thinking"] == thinking and "temperature" not in request and request["dropped"] == ("temperature",)


def test_reasoning_effort_reaches_a_claude_that_knows_it_and_is_dropped_elsewhere() -> None:
    assert wire("anthropic", "claude-opus-4-6", reasoning_effort="minimal")["output_config"] == {"effort": "low"}
    assert wire("anthropic", "claude-sonnet-4-5", reasoning_effort="low")["dropped"] == ("reasoning_effort",)


def test_an_older_claude_answers_in_a_schema_by_a_forced_tool() -> None:
    request = wire("anthropic", "claude-3-5-haiku-latest", response_format=JSON_SCHEMA)
    assert request["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}
    assert request["tools"][0]["input_schema"] == SCHEMA and "output_config" not in request


@pytest.mark.parametrize(
    "protocol, model", [("anthropic", "claude-opus-5-5"), ("bedrock", "anthropic.claude-fable-5-1")]
)
def test_a_claude_that_always_thinks_cannot_be_forced_to_a_call(protocol: str, model: str) -> None:
    with pytest.raises(CannotExpress, match="tool_choice"):
        wire(protocol, model, tools=[TOOL], tool_choice="required")


def test_on_bedrock_such_a_claude_answers_in_a_schema_without_a_tool() -> None:
    request = wire("bedrock", "anthropic.claude-opus-5-5", response_format=JSON_SCHEMA)
    structure = request["outputConfig"]["textFormat"]["structure"]
    assert orjson.loads(structure["jsonSchema"]["schema"])["properties"] == SCHEMA["properties"]
    assert "toolConfig" not in request


def test_a_forced_tool_leaves_the_callers_tools_callable() -> None:
    request = wire("bedrock", NOVA, response_format=JSON_SCHEMA, tools=[TOOL])
    assert request["toolConfig"]["toolChoice"] == {"any": {}}
    assert [tool["toolSpec"]["name"] for tool in request["toolConfig"]["tools"]] == ["weather", ANSWER_TOOL]


def bedrock_calls(*calls: tuple[str, Any], reason: str = "tool_use") -> dict[str, Any]:
    blocks = [
        {"toolUse": {"toolUseId": f"t{n}", "name": name, "input": given}} for n, (name, given) in enumerate(calls)
    ]
    return {"output": {"message": {"content": [{"text": "Here:"}, *blocks]}}, "stopReason": reason, "usage": {}}


def test_the_forced_tools_call_becomes_the_content() -> None:
    choice = choice_of(read("bedrock", bedrock_calls((ANSWER_TOOL, {"a": 1})), response_format=JSON_SCHEMA))
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"a":1}', "stop")
    assert "tool_calls" not in choice["message"]


def test_a_forced_tools_call_outside_the_schema_is_a_failure() -> None:
    with pytest.raises(BadAnswer, match="schema"):
        read("bedrock", bedrock_calls((ANSWER_TOOL, {"a": "x"})), response_format=JSON_SCHEMA)


def test_the_callers_own_calls_come_before_a_premature_answer() -> None:
    body = bedrock_calls(("weather", {}), (ANSWER_TOOL, {"a": 1}))
    choice = choice_of(read("bedrock", body, response_format=JSON_SCHEMA))
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]


@pytest.mark.parametrize("text", ['{"a": 1}', '```json\n{"a": 1}\n```', '```\n{"a": 1}\n```\n'])
def test_json_object_is_asked_for_in_words_and_freed_of_its_fence(text: str) -> None:
    request = wire("anthropic", "claude-sonnet-4-5", response_format={"type": "json_object"})
    assert "JSON object" in request["system"][-1]["text"]
    body = {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    answer = read("anthropic", body, response_format={"type": "json_object"})
    assert choice_of(answer)["message"]["content"] == '{"a": 1}'


def test_a_schemas_references_are_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *request, **options: fetched.append(request))
    schema = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"type": "message", "content": [{"type": "text", "text": '{"a": 1}'}], "stop_reason": "end_turn"}
    assert choice_of(read("anthropic", body, response_format=wanted))["message"]["content"] == '{"a": 1}'
    assert fetched == []


def test_a_strict_tools_schema_is_closed_and_freed_of_limits_that_claude_refuses() -> None:
    parameters = {"type": "object", "properties": {"minimum": {"type": "integer", "minimum": 1}}}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}
    sent = wire("anthropic", "claude-sonnet-4-5", tools=[tool])["tools"][0]
    assert sent["strict"] is True
    assert sent["input_schema"] == {
        "type": "object",
        "properties": {"minimum": {"type": "integer"}},
        "additionalProperties": False,
    }


def test_allowed_tools_are_said_by_offering_only_them() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    request = wire("anthropic", "claude-sonnet-4-5", tools=[TOOL, OTHER_TOOL], tool_choice=choice)
    assert [tool["name"] for tool in request["tools"]] == ["time"] and request["tool_choice"] == {"type": "any"}


def test_cache_marks_stay_where_they_were_set() -> None:
    content = [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "q"}]
    messages = [{"role": "user", "content": content}]
    blocks = wire("anthropic", "claude-sonnet-4-5", messages=messages)["messages"][0]["content"]
    assert [block.get("cache_control") for block in blocks] == [{"type": "ephemeral"}, None]
    blocks = wire("bedrock", NOVA, messages=messages)["messages"][0]["content"]
    assert blocks == [{"text": "long"}, {"cachePoint": {"type": "default"}}, {"text": "q"}]
    assert wire("gemini", "gemini-2.5-pro", messages=messages)["dropped"] == ("messages.cache_control",)


def test_calls_that_anthropic_runs_itself_are_not_the_clients() -> None:
    content = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result"}]},
        {"type": "mcp_tool_use", "id": "m1", "name": "ask", "input": {}, "server_name": "s"},
        {"type": "text", "text": "So: ", "citations": None},
        {"type": "text", "text": "yes", "citations": [{"type": "web_search_result_location"}]},
    ]
    choice = choice_of(read("anthropic", {"type": "message", "content": content, "stop_reason": "end_turn"}))
    assert choice["message"] == {"role": "assistant", "content": "So: yes", "refusal": None}


def test_a_refusal_is_visible_with_its_explanation() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "I will not."}
    body = {"type": "message", "content": [], "stop_reason": "refusal", "stop_details": details}
    answer = read("anthropic", body)
    assert choice_of(answer)["finish_reason"] == "content_filter" and answer.raw_finish == "refusal"
    assert choice_of(answer)["message"]["refusal"] == "I will not."


def test_what_a_guardrail_of_bedrock_has_put_in_place_of_the_answer_is_filtered() -> None:
    body = {"type": "message", "content": [{"type": "text", "text": "Blocked."}], "stop_reason": "end_turn"}
    answer = read("anthropic", {**body, "amazon-bedrock-guardrailAction": "INTERVENED"})
    assert choice_of(answer)["finish_reason"] == "content_filter"
    assert choice_of(answer)["message"]["content"] == "Blocked."


@pytest.mark.parametrize("count", [-1, 1e30, "7", None])
def test_a_count_that_cannot_be_one_counts_as_nothing(count: Any) -> None:
    body = {"type": "message", "content": "hi", "stop_reason": "end_turn", "usage": {"input_tokens": count}}
    assert read("anthropic", body).usage == Usage()


def test_cache_writes_are_summed_from_their_lifetimes_when_only_those_are_given() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 3, "x": 4}}
    body = {"type": "message", "content": "hi", "stop_reason": "end_turn", "usage": usage}
    assert read("anthropic", body).usage == Usage(8, 2, 0, 7, 0)


# Signatures of reasoning


MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-3-pro", "bedrock": NOVA, "openai": "gpt-x"}


def signed_by(maker: str) -> Answer:
    return read(maker, SIGNED[maker], MODELS[maker])


def follow_up(protocol: str, answer: Answer, model: str = "") -> dict[str, Any]:
    message = choice_of(answer)["message"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message["tool_calls"]]
    return wire(protocol, model or MODELS[protocol], messages=[HI, message, *results], tools=[TOOL])


SIGNED = {
    "anthropic": {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "SECRET-SIGN"},
            {"type": "redacted_thinking", "data": "SECRET-DATA"},
            {"type": "tool_use", "id": "t", "name": "weather", "input": {}},
        ],
        "stop_reason": "tool_use",
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [{"functionCall": {"name": "weather", "args": {}}, "thoughtSignature": "SECRET-SIGN"}]
                },
                "finishReason": "STOP",
            }
        ]
    },
    "bedrock": {
        "output": {
            "message": {
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "SECRET-SIGN"}}},
                    {"toolUse": {"toolUseId": "t", "name": "weather", "input": {}}},
                ]
            }
        },
        "stopReason": "tool_use",
    },
}


@pytest.mark.parametrize("to", ["openai", "anthropic", "gemini", "bedrock"])
@pytest.mark.parametrize("made_by", list(SIGNED))
def test_signatures_return_to_their_maker_and_reach_no_other(made_by: str, to: str) -> None:
    request = orjson.dumps(follow_up(to, signed_by(made_by)))
    assert (b"SECRET-SIGN" in request) is (made_by == to)


@pytest.mark.parametrize("maker, model", [("anthropic", "claude-opus-4-5"), ("bedrock", "amazon.nova-pro-v1:0")])
def test_signed_reasoning_does_not_reach_another_model_of_its_maker(maker: str, model: str) -> None:
    assert b"SECRET" not in orjson.dumps(follow_up(maker, signed_by(maker), model))


def test_thinking_comes_back_as_it_was_and_first() -> None:
    blocks = follow_up("anthropic", signed_by("anthropic"))["messages"][1]["content"]
    assert blocks[:2] == SIGNED["anthropic"]["content"][:2] and blocks[2]["type"] == "tool_use"


def test_gemini_3_gets_the_agreed_word_in_place_of_a_signature_it_never_made() -> None:
    request = follow_up("gemini", signed_by("bedrock"))
    assert request["contents"][1]["parts"][0]["thoughtSignature"] == "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="


# Gemini


def gemini(**candidate: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": "x"}]}, **candidate}]}


@pytest.mark.parametrize(
    "reason, dialect, finish",
    [
        (1, "gemini", "stop"),
        (2, "gemini", "length"),
        (8, "gemini", "content_filter"),
        (10, "vertex", "content_filter"),
        ("FINISH_REASON_STOP", "gemini", "stop"),
        *(
            (reason, "gemini", "content_filter")
            for reason in ("SAFETY", "RECITATION", "BLOCKLIST", "SPII", "JAILBREAK")
        ),
        *((f"IMAGE_{reason}", "gemini", "content_filter") for reason in ("SAFETY", "RECITATION", "PROHIBITED_CONTENT")),
        ("MODEL_ARMOR", "vertex", "content_filter"),
    ],
)
def test_geminis_reasons_come_as_words_and_as_numbers(reason: Any, dialect: str, finish: str) -> None:
    answer = read("gemini", gemini(finishReason=reason), dialect=dialect)
    assert choice_of(answer)["finish_reason"] == finish


@pytest.mark.parametrize(
    "reason", [0, 5, 6, 10, 99, -1, "OTHER", "LANGUAGE", "UNEXPECTED_TOOL_CALL", "MALFORMED_FUNCTION_CALL", None]
)
def test_geminis_other_reasons_are_failures(reason: Any) -> None:
    with pytest.raises(BadAnswer):
        read("gemini", gemini(finishReason=reason))


def test_a_number_means_another_word_on_vertex() -> None:
    body = {**gemini(finishReason=6), "createTime": "2026-01-01T00:00:00Z"}
    assert choice_of(read("gemini", body))["finish_reason"] == "content_filter"


@pytest.mark.parametrize("reason", ["SAFETY", "PROHIBITED_CONTENT", "OTHER", 2])
def test_a_blocked_prompt_is_the_class_content_filter_and_keeps_its_cost(reason: Any) -> None:
    body = {"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 4}}
    with pytest.raises(BadAnswer) as caught:
        read("gemini", body)
    assert caught.value.cls is FailureClass.CONTENT_FILTER
    assert caught.value.answer is not None and caught.value.answer.usage.input_tokens == 4


@pytest.mark.parametrize("content", [{}, None, {"parts": []}, {"role": "model"}])
def test_a_blocked_candidate_without_content_is_filtered_and_a_stop_without_content_a_failure(content: Any) -> None:
    answer = read("gemini", gemini(content=content, finishReason="SAFETY"))
    assert choice_of(answer)["finish_reason"] == "content_filter" and choice_of(answer)["message"]["content"] is None
    with pytest.raises(BadAnswer):
        read("gemini", gemini(content=content, finishReason="STOP"))


def test_gemini_in_snake_case_and_in_an_array_reads_the_same() -> None:
    body = {
        "candidates": [
            {
                "content": {"parts": [{"function_call": {"name": "weather", "args": {"snake_key": 1}}}]},
                "finish_reason": "STOP",
            }
        ],
        "usage_metadata": {"prompt_token_count": 5, "tool_use_prompt_token_count": 2, "cached_content_token_count": 3},
        "model_version": "gemini-x",
    }
    answer = adapter_for("gemini").answer(Call("vertex", "m", {}), 200, {}, orjson.dumps([body]))
    call = choice_of(answer)["message"]["tool_calls"][0]["function"]
    assert call == {"name": "weather", "arguments": '{"snake_key":1}'}
    assert (answer.usage.input_tokens, answer.usage.cached_tokens, answer.model) == (7, 3, "gemini-x")


def test_candidates_become_choices() -> None:
    candidates = [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"} for text in "ab"]
    choices = read("gemini", {"candidates": candidates}).completion["choices"]
    assert [(choice["index"], choice["message"]["content"]) for choice in choices] == [(0, "a"), (1, "b")]


def test_code_that_google_runs_is_neither_content_nor_a_call() -> None:
    parts = [{"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}, {"text": "1"}]
    message = choice_of(read("gemini", gemini(content={"parts": parts}, finishReason="STOP")))["message"]
    assert message == {"role": "assistant", "content": "1", "refusal": None}


def test_an_image_that_gemini_made_is_kept_next_to_the_text() -> None:
    parts = [{"text": "Here"}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}}]
    message = choice_of(read("gemini", gemini(content={"parts": parts}, finishReason="STOP")))["message"]
    assert message["content"] == "Here"
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


def test_log_probabilities_take_openais_form() -> None:
    token = {"token": "é", "logProbability": -0.5}
    result = {"chosenCandidates": [token], "topCandidates": [{"candidates": [token]}]}
    logprobs = choice_of(read("gemini", gemini(finishReason="STOP", logprobsResult=result)))["logprobs"]
    one = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    assert logprobs == {"content": [{**one, "top_logprobs": [one]}], "refusal": None}


def test_gemini_2_refuses_a_schema_together_with_tools() -> None:
    with pytest.raises(CannotExpress, match="response_format"):
        wire("gemini", "gemini-2.5-flash", tools=[TOOL], response_format=JSON_SCHEMA)
    assert wire("gemini", "gemini-3-flash", tools=[TOOL], response_format=JSON_SCHEMA)["generationConfig"]


@pytest.mark.parametrize(
    "model, effort, thinking",
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24_576}),
        ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "minimal"}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "medium"}),
    ],
)
def test_reasoning_effort_takes_the_form_of_the_generation(model: str, effort: str, thinking: dict[str, Any]) -> None:
    assert wire("gemini", model, reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == thinking


# Bedrock


def test_bedrocks_own_tools_and_cited_text() -> None:
    blocks = [
        {"toolUse": {"toolUseId": "s", "name": "nova_code_interpreter", "input": {}, "type": "server_tool_use"}},
        {"toolResult": {"toolUseId": "s", "content": []}},
        {"citationsContent": {"content": [{"text": "cited"}], "citations": []}},
    ]
    body = {"output": {"message": {"content": blocks}}, "stopReason": "end_turn"}
    assert choice_of(read("bedrock", body))["message"] == {"role": "assistant", "content": "cited", "refusal": None}


def test_converse_wants_tools_as_long_as_the_conversation_has_calls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "ok"}]
    with pytest.raises(CannotExpress, match="tools"):
        wire("bedrock", NOVA, messages=messages)
    with pytest.raises(CannotExpress, match="tools"):
        wire("bedrock", NOVA, messages=messages, tools=[TOOL], tool_choice="none")


# Whatever a caller writes

RICH_BODY = {
    "messages": [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
        {
            "role": "assistant",
            "content": "c",
            "extra_content": {"google": {"thought_signature": "s"}, "anthropic": {"thinking": [{"type": "thinking"}]}},
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "ok"}]},
        {
            "role": "user",
            "content": [{"type": "file", "file": {"file_data": "data:text/plain,x", "filename": "a.txt"}}],
        },
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "response_format": JSON_SCHEMA,
    "stop": ["x"],
    "temperature": 0.1,
    "max_tokens": 5,
    "n": 1,
    "reasoning_effort": "low",
    "thinking": {"type": "enabled"},
    "parallel_tool_calls": True,
}
VALUES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4) | st.just([]) | st.just({}) | st.just([{}])
)


@pytest.mark.parametrize("model", ["claude-sonnet-5", "gemini-3-pro", "gemini-2.0-flash", NOVA])
@settings(examples(300), derandomize=True)
@given(data=st.data())
def test_whatever_a_caller_writes_it_is_sent_or_refused_by_name(model: str, data: st.DataObject) -> None:
    body = orjson.loads(orjson.dumps(RICH_BODY))
    place: Any = body
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(VALUES)
    protocol = "anthropic" if "claude" in model else "gemini" if "gemini" in model else "bedrock"
    if protocol != "anthropic":
        body.pop("thinking", None)
    try:
        wire(protocol, model, **body)
    except CannotExpress as refusal:
        assert str(refusal)
