"""The OpenAI adapter: what each dialect is sent, and how its answers are read."""

from typing import Any

import orjson
import pytest

from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.openai import OpenAIAdapter

USER = {"role": "user", "content": "Hello"}
ADAPTER = OpenAIAdapter()


def sent(
    dialect: str = "openai",
    model: str = "gpt-4o",
    base_url: str = "https://provider.test/v1",
    options: dict[str, str] | None = None,
    **body: Any,
) -> tuple[WireRequest, dict[str, Any]]:
    call = Call(dialect, model, {"messages": [USER], **body})
    wire = ADAPTER.request(call, Endpoint(base_url, "sk-secret", options=options or {}))
    return wire, orjson.loads(wire.content)


def read(document: Any, dialect: str = "openai", **body: Any) -> Answer:
    content = document if isinstance(document, bytes) else orjson.dumps(document)
    return ADAPTER.answer(Call(dialect, "the-model", body), 200, {}, content)


def answered(message: dict[str, Any] | None, finish: Any = "stop", usage: Any = None, **choice: Any) -> dict[str, Any]:
    made = {"index": 0, "finish_reason": finish, **choice}
    if message is not None:
        made["message"] = {"role": "assistant", **message}
    return {"id": "chatcmpl-1", "created": 7, "model": "m", "choices": [made], "usage": usage}


def choice_of(document: Any, dialect: str = "openai", **body: Any) -> dict[str, Any]:
    choice: dict[str, Any] = read(document, dialect, **body).completion["choices"][0]
    return choice


def tool_call(**changes: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}, **changes}


class TestRequest:
    def test_the_model_goes_into_the_body_and_unknown_fields_go_verbatim(self) -> None:
        wire, body = sent(stream=True, stream_options={"include_usage": True}, top_k=3, seed=None)
        assert wire.path == "/chat/completions"
        assert wire.headers["authorization"] == "Bearer sk-secret"
        assert body == {"model": "gpt-4o", "messages": [USER], "top_k": 3}

    def test_the_callers_body_is_left_alone(self) -> None:
        body = {"messages": [{"role": "developer", "content": "x"}], "max_completion_tokens": 5}
        copy = orjson.loads(orjson.dumps(body))
        ADAPTER.request(Call("mistral", "m", body), Endpoint("https://provider.test"))
        assert body == copy

    def test_azure_has_a_path_per_deployment_and_a_key_header(self) -> None:
        wire, _ = sent("azure", "my gpt", "https://x.openai.azure.com", {"api_version": "2024-10-21"})
        assert wire.path == "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"
        assert wire.headers["api-key"] == "sk-secret"
        assert "authorization" not in wire.headers

    def test_azures_newer_surface_has_neither_deployment_nor_version_in_its_path(self) -> None:
        assert sent("azure", base_url="https://x.openai.azure.com/openai/v1/")[0].path == "/chat/completions"

    @pytest.mark.parametrize(
        ("dialect", "model", "given", "expected"),
        [
            ("openai", "gpt-5-mini", {"max_tokens": 9}, {"max_completion_tokens": 9}),
            ("openai", "o3-mini", {"max_tokens": 9}, {"max_completion_tokens": 9}),
            ("openai", "gpt-4o", {"max_tokens": 9}, {"max_tokens": 9}),
            ("openai", "gpt-4o", {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
            ("azure", "gpt-5", {"max_tokens": 9, "max_completion_tokens": 8}, {"max_completion_tokens": 8}),
            ("openrouter", "openai/gpt-5.1", {"max_tokens": 9}, {"max_completion_tokens": 9}),
            ("mistral", "mistral-small", {"max_completion_tokens": 9}, {"max_tokens": 9}),
            ("deepseek", "deepseek-chat", {"max_completion_tokens": 9, "max_tokens": 5}, {"max_tokens": 9}),
            ("my-server", "llama", {"max_completion_tokens": 9}, {"max_tokens": 9}),
            ("my-gateway", "gpt-5", {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
            ("groq", "openai/gpt-oss-120b", {"max_tokens": 9}, {"max_tokens": 9}),
        ],
    )
    def test_the_token_limit_has_the_name_that_the_target_takes(
        self, dialect: str, model: str, given: dict[str, Any], expected: dict[str, int]
    ) -> None:
        _, body = sent(dialect, model, **given)
        assert {key: body[key] for key in body if key.startswith("max_")} == expected

    @pytest.mark.parametrize(("dialect", "role"), [("openai", "developer"), ("mistral", "system"), ("mine", "system")])
    def test_developer_messages_are_system_messages_to_those_who_know_no_developer(
        self, dialect: str, role: str
    ) -> None:
        _, body = sent(dialect, messages=[{"role": "developer", "content": "Be brief"}, USER])
        assert [message["role"] for message in body["messages"]] == [role, "user"]

    def test_reasoning_of_another_provider_loses_its_signatures_and_keeps_its_text_where_there_is_a_field(self) -> None:
        turn = {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm", "signature": "S"}, {"type": "text", "text": "Hi"}],
            "reasoning_content": "hm",
            "reasoning_details": [{"type": "reasoning.encrypted", "data": "S"}],
            "annotations": [],
            "refusal": None,
            "tool_calls": [tool_call(extra_content={"google": {"thought_signature": "S"}})],
        }
        wire, body = sent("groq", messages=[turn, USER])
        assert body["messages"][0] == {
            "role": "assistant",
            "content": [{"type": "text", "text": "Hi"}],
            "reasoning": "hm",
            "tool_calls": [tool_call()],
        }
        assert wire.dropped == ("reasoning_details",)
        assert "reasoning_content" not in sent("openai", messages=[turn, USER])[1]["messages"][0]
        assert sent("openrouter", messages=[turn])[1]["messages"][0]["reasoning_details"] == turn["reasoning_details"]

    def test_null_content_next_to_tool_calls_stays_null(self) -> None:
        turn = {"role": "assistant", "content": None, "tool_calls": [tool_call()]}
        assert sent(messages=[turn])[1]["messages"][0] == turn

    def test_advice_that_a_provider_would_refuse_is_left_out_and_named(self) -> None:
        wire, body = sent("mistral", store=True, user="u", seed=3, messages=[{**USER, "name": "Ann"}])
        assert body == {"model": "gpt-4o", "messages": [USER], "random_seed": 3}
        assert wire.dropped == ("name", "store", "user")

    @pytest.mark.parametrize(
        ("dialect", "body"),
        [
            ("groq", {"n": 2}),
            ("ollama", {"n": 2}),
            ("mistral", {"logprobs": True}),
            ("deepseek", {"response_format": {"type": "json_schema", "json_schema": {}}}),
        ],
    )
    def test_what_a_dialect_cannot_say_is_refused_with_its_name(self, dialect: str, body: dict[str, Any]) -> None:
        with pytest.raises(CannotExpress, match=next(iter(body))):
            sent(dialect, **body)

    @pytest.mark.parametrize("odd", [0, 1.5, "odd", ["odd"], [{}], {"odd": 1}], ids=repr)
    def test_a_body_of_odd_types_is_left_to_the_provider_to_refuse(self, odd: Any) -> None:
        turn = {"role": "assistant", "content": odd, "tool_calls": odd, "name": odd, "reasoning_content": odd}
        fields = ("n", "response_format", "tools", "max_tokens", "max_completion_tokens", "logprobs", "stop")
        assert sent("together", messages=[turn, odd], **dict.fromkeys(fields, odd))[1]["messages"][1] == odd
        assert sent("together", messages=odd)[1]["messages"] == odd

    def test_what_every_dialect_can_say_is_not_refused(self) -> None:
        assert sent("groq", n=1, logprobs=False)[1]["n"] == 1


class TestMessage:
    def test_a_plain_answer_passes_through_with_what_the_provider_adds(self) -> None:
        document = answered({"content": "Hi", "refusal": None}) | {"citations": ["https://a.test"]}
        answer = read(document)
        assert answer.completion["object"] == "chat.completion"
        assert answer.completion["citations"] == ["https://a.test"]
        assert answer.completion["choices"][0]["message"] == {"role": "assistant", "content": "Hi", "refusal": None}
        assert (answer.model, answer.raw_finish) == ("m", "stop")

    def test_content_as_a_list_becomes_text_and_reasoning(self) -> None:
        parts = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Let me"}, {"type": "text", "text": " see."}]},
            {"type": "text", "text": "Four"},
            {"type": "reference", "reference_ids": [1]},
            {"type": "text", "text": "."},
        ]
        message = choice_of(answered({"content": parts}), "mistral")["message"]
        assert (message["content"], message["reasoning_content"]) == ("Four.", "Let me see.")

    def test_thoughts_in_tags_before_the_answer_become_reasoning(self) -> None:
        message = choice_of(answered({"content": "<think>\nHm.\n</think>\n\nFour <think>"}))["message"]
        assert (message["content"], message["reasoning_content"]) == ("Four <think>", "Hm.")

    def test_a_thought_that_was_cut_off_is_all_reasoning(self) -> None:
        message = choice_of(answered({"content": "<think>Hm"}, "length"))["message"]
        assert (message["content"] or None, message["reasoning_content"]) == (None, "Hm")

    def test_an_unclosed_thought_stays_content_when_the_answer_is_whole(self) -> None:
        assert choice_of(answered({"content": "<think>Hm. Four."}))["message"]["content"] == "<think>Hm. Four."

    @pytest.mark.parametrize(
        "field", [{"reasoning": "Hm"}, {"reasoning_content": "Hm"}, {"reasoning_details": [{"text": "Hm"}]}]
    )
    def test_reasoning_has_one_name_whatever_the_provider_calls_it(self, field: dict[str, Any]) -> None:
        message = choice_of(answered({"content": "4", **field}))["message"]
        assert message["reasoning_content"] == "Hm"
        assert "reasoning" not in message

    def test_content_may_be_missing_next_to_tool_calls(self) -> None:
        message = choice_of(answered({"tool_calls": [tool_call(index=0)]}, "tool_calls"))["message"]
        assert message["content"] is None
        assert message["tool_calls"] == [tool_call()]

    @pytest.mark.parametrize("arguments", [None, "", {}])
    def test_a_tool_call_without_arguments_has_an_empty_object(self, arguments: Any) -> None:
        call = tool_call(function={"name": "look", "arguments": arguments})
        made = choice_of(answered({"tool_calls": [call]}, "tool_calls"))["message"]["tool_calls"]
        assert made[0]["function"] == {"name": "look", "arguments": "{}"}

    def test_arguments_as_an_object_become_text(self) -> None:
        call = tool_call(function={"name": "look", "arguments": {"at": 1}})
        made = choice_of(answered({"tool_calls": [call]}, "tool_calls"))["message"]["tool_calls"]
        assert made[0]["function"]["arguments"] == '{"at":1}'

    def test_tool_calls_without_ids_get_stable_and_different_ones(self) -> None:
        document = answered({"tool_calls": [tool_call(id=""), tool_call(id=None)]}, "tool_calls")
        first, second = ([call["id"] for call in choice_of(document)["message"]["tool_calls"]] for _ in range(2))
        assert first == second
        assert len(set(first)) == 2

    def test_empty_objects_that_stand_for_nothing_are_left_out(self) -> None:
        message = {
            "content": "Hi",
            "refusal": "",
            "function_call": {"name": "", "arguments": ""},
            "audio": {"id": "", "expires_at": 0},
            "tool_calls": [],
        }
        assert choice_of(answered(message))["message"] == {"role": "assistant", "content": "Hi", "refusal": None}

    def test_a_refusal_is_visible_as_one(self) -> None:
        choice = choice_of(answered({"content": None, "refusal": "No."}))
        assert (choice["message"]["refusal"], choice["finish_reason"]) == ("No.", "stop")

    def test_missing_ids_dates_and_models_are_filled_in(self) -> None:
        document = answered({"content": "Hi"}) | {"id": "", "created": None, "model": ""}
        made = ADAPTER.answer(
            Call("mine", "asked", {}), 200, {"Date": "Thu, 01 Jan 1970 00:01:00 GMT"}, orjson.dumps(document)
        ).completion
        assert made["id"].startswith("chatcmpl-")
        assert (made["created"], made["model"]) == (60, "asked")


class TestFinishReason:
    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ("eos", "stop"),
            ("STOP", "stop"),
            ("end_turn", "stop"),
            ("max_tokens", "length"),
            ("model_length", "length"),
            ("SAFETY", "content_filter"),
        ],
    )
    def test_known_words_are_translated_and_the_raw_one_is_kept(self, raw: str, expected: str) -> None:
        answer = read(answered({"content": "Hi"}, raw))
        assert answer.completion["choices"][0]["finish_reason"] == expected
        assert answer.raw_finish == raw

    @pytest.mark.parametrize("raw", ["stop", "", None, "tool_use"])
    def test_whatever_the_reason_a_finish_with_tool_calls_is_tool_calls(self, raw: Any) -> None:
        assert choice_of(answered({"tool_calls": [tool_call()]}, raw))["finish_reason"] == "tool_calls"

    def test_tool_calls_cut_by_length_stay_cut(self) -> None:
        assert choice_of(answered({"tool_calls": [tool_call()]}, "length"))["finish_reason"] == "length"

    def test_an_empty_reason_next_to_text_is_a_stop_and_no_reason_is_none(self) -> None:
        assert choice_of(answered({"content": "Hi"}, ""))["finish_reason"] == "stop"
        with pytest.raises(BadAnswer, match="no finish reason"):
            read(answered({"content": "Hi"}, None))

    @pytest.mark.parametrize("raw", ["error", "insufficient_system_resource", "abort", "something_new"])
    def test_an_unknown_reason_is_a_failure_that_keeps_what_it_cost(self, raw: str) -> None:
        with pytest.raises(BadAnswer, match=raw) as caught:
            read(answered({"content": "Hi"}, raw, {"prompt_tokens": 5, "completion_tokens": 2}))
        assert caught.value.answer is not None
        assert caught.value.answer.usage.input_tokens == 5

    def test_tool_calls_announced_and_missing_are_a_failure(self) -> None:
        with pytest.raises(BadAnswer, match="tool calls"):
            read(answered({"content": ""}, "tool_calls"))

    def test_a_filtered_choice_may_have_no_message(self) -> None:
        choice = choice_of(answered(None, "content_filter"), "azure")
        assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", None)


class TestUsage:
    @pytest.mark.parametrize(
        "extra",
        [
            {"prompt_tokens_details": {"cached_tokens": 6}},
            {"cached_tokens": 6},
            {"num_cached_tokens": 6},
            {"prompt_cache_hit_tokens": 6, "prompt_tokens_details": {"cached_tokens": 0}},
            {"cache_read_input_tokens": 6},
        ],
    )
    def test_cached_tokens_are_found_under_each_of_their_names(self, extra: dict[str, Any]) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, **extra}
        answer = read(answered({"content": "Hi"}, usage=usage))
        assert answer.usage.cached_tokens == 6
        assert answer.completion["usage"]["prompt_tokens_details"]["cached_tokens"] == 6
        assert answer.raw_usage == usage

    def test_reasoning_that_was_left_out_of_the_completion_is_counted_in(self) -> None:
        details = {"completion_tokens_details": {"reasoning_tokens": 244}}
        usage = {"prompt_tokens": 352, "completion_tokens": 28, "total_tokens": 624, **details}
        made = read(answered({"content": "Hi"}, usage=usage), "xai").usage
        assert (made.output_tokens, made.reasoning_tokens) == (272, 244)

    def test_reasoning_that_is_in_the_completion_is_not_counted_twice(self) -> None:
        details = {"completion_tokens_details": {"reasoning_tokens": 20}}
        usage = {"prompt_tokens": 10, "completion_tokens": 28, "total_tokens": 38, **details}
        assert read(answered({"content": "Hi"}, usage=usage)).usage.output_tokens == 28

    def test_a_total_that_does_not_add_up_is_made_to(self) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 99}
        assert read(answered({"content": "Hi"}, usage=usage)).completion["usage"]["total_tokens"] == 15

    @pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "prompt_tokens_details": None}])
    def test_missing_counts_are_zero(self, usage: Any) -> None:
        assert read(answered({"content": "Hi"}, usage=usage)).completion["usage"]["total_tokens"] == 0


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "empty"),
            (b"\n\n \n", "empty"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b': PROCESSING\n\ndata: {"error":1}\n\ndata: [DONE]', "event stream"),
            (b'{"choices": [{"mess', "truncated"),
            (b'{"choices": []}data: [DONE]', "not valid JSON"),
            (b"[1]", "not an object"),
            (b'{"choices": []}', "no choices"),
            (b'{"error": {"message": "upstream", "code": 502}}', "error.*502"),
            (b'{"error": "model crashed"}', "error"),
            (b'{"object": "error", "type": "NotFoundError", "code": 404}', "error.*404"),
            (b'{"choices": [{"finish_reason": "stop"}]}', "no message"),
            (b'{"choices": [{"finish_reason": "stop", "message": {"content": ""}, "error": {"code": 1}}]}', "error"),
            (b'{"choices": [{"finish_reason": "stop", "message": {"tool_calls": [{"id": "1"}]}}]}', "no function"),
        ],
    )
    def test_a_success_without_an_answer_says_what_it_is(self, content: bytes, says: str) -> None:
        with pytest.raises(BadAnswer, match=says):
            read(content)

    def test_an_error_made_of_nothing_is_none(self) -> None:
        document = answered({"content": "Hi"}) | {"error": {"code": 0, "message": ""}}
        assert choice_of(document)["message"]["content"] == "Hi"

    def test_fewer_choices_than_asked_for_are_a_failure(self) -> None:
        with pytest.raises(BadAnswer, match="1 choices instead of 2"):
            read(answered({"content": "Hi"}), n=2)

    def test_blank_lines_nan_and_half_characters_do_not_spoil_an_answer(self) -> None:
        content = b'\n\n{"choices":[{"finish_reason":"stop","message":{"content":"a\\ud83d"},"logprobs":NaN}]}'
        completion = read(content).completion
        assert completion["choices"][0]["message"]["content"] == "a?"
        orjson.dumps(completion)

    def test_json_that_is_nested_without_end_is_a_failure_and_no_crash(self) -> None:
        with pytest.raises(BadAnswer):
            read(b"[" * 200_000)

    def test_an_answer_that_ignores_response_format_is_a_failure_except_where_the_provider_guarantees_it(self) -> None:
        wanted = {"type": "json_object"}
        with pytest.raises(BadAnswer, match="response_format"):
            read(answered({"content": "Sure!"}), "ollama", response_format=wanted)
        fenced = answered({"content": '```json\n{"a": 1}\n```'})
        assert choice_of(fenced, "ollama", response_format=wanted)["message"]["content"] == '{"a": 1}'
        assert choice_of(answered({"content": "{"}, "length"), "ollama", response_format=wanted)
        assert choice_of(answered({"content": "Sure!"}), "openai", response_format=wanted)

    def test_no_text_of_the_model_is_in_the_message(self) -> None:
        with pytest.raises(BadAnswer) as caught:
            read(answered({"content": "canary"}, "canary " * 20) | {"error": {"message": "canary", "code": "x"}})
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize("odd", [None, 0, -1, 1.5, True, "", "odd", [], [None], [1], {}, {"odd": 1}], ids=repr)
    def test_a_field_of_any_other_type_is_read_or_refused_and_never_crashes(self, odd: Any) -> None:
        for path in PATHS:
            document = orjson.loads(orjson.dumps(FULL))
            *way, last = path
            place = document
            for key in way:
                place = place[key]
            place[last] = odd
            try:
                orjson.dumps(read(document, n=1).completion)
            except BadAnswer:
                continue


FULL = answered(
    {
        "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}],
        "reasoning_details": [{"text": "hm"}],
        "tool_calls": [tool_call()],
    },
    usage={
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
)


def every_path(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, child in entries for path in [(*before, key), *every_path(child, (*before, key))]]


PATHS = every_path(FULL)
