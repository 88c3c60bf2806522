"""What a request body must look like before any provider is asked."""

from typing import Any

import pytest

from understudy.models.request.wire import ErrorBody, RequestError, check_body, parse_line

USER = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER]},
        {"messages": [{"role": "system", "content": "s"}, USER], "stream": False, "unheard_of": {"deep": [1]}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "video_url"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "42"},
            ]
        },
        {"messages": [USER], "max_tokens": None, "temperature": 0, "stop": ["a"], "tool_choice": "auto"},
    ],
)
def test_good_bodies_pass(body: dict[str, Any]) -> None:
    check_body(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "secret words"}, "messages"),
        ({"messages": ["secret words"]}, "messages[0]"),
        ({"messages": [USER, {"content": "secret words"}]}, "messages[1].role"),
        ({"messages": [{"role": ["user"], "content": "secret words"}]}, "messages[0].role"),
        ({"messages": [{"role": "narrator", "content": "secret words"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"secret": "words"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["secret words"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}]},
            "messages[0].content[0].image_url",
        ),
        ({"messages": [{"role": "tool", "content": "secret words"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": "f"}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": ["f"]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"messages": [USER], "stream": True}, "stream"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens"),
        ({"messages": [USER], "max_tokens": True}, "max_tokens"),
        ({"messages": [USER], "n": 1.5}, "n"),
        ({"messages": [USER], "temperature": "hot"}, "temperature"),
        ({"messages": [USER], "stop": [1]}, "stop"),
        ({"messages": [USER], "tools": {"name": "f"}}, "tools"),
        ({"messages": [USER], "tool_choice": 1}, "tool_choice"),
        ({"messages": [USER], "response_format": "json"}, "response_format"),
    ],
)
def test_bad_bodies_are_refused_by_field_and_never_quoted(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_body(body)
    assert refused.value.param == param
    assert f"'{param}'" in refused.value.message
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"[1]", "must be a JSON object, not an array"),
        (b"null", "not null"),
        (b'"x"', "not a string"),
        (b'{"a": NaN}', "is not valid JSON"),
        (b'{"a": "\\ud800"}', "is not valid JSON"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":"' + b"x" * 100 + b'"}', "the limit is 64"),
    ],
)
def test_lines_that_are_not_objects_are_rejected_with_the_reason(raw: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_line(raw, max_bytes=64 if b"xxx" in raw else 1_000_000)
    assert words in refused.value.message


def test_a_broken_line_is_not_quoted() -> None:
    with pytest.raises(RequestError) as refused:
        parse_line(b'{"secret": words')
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_good_line_is_an_object() -> None:
    assert parse_line('{"a": "ü"}\n'.encode()) == {"a": "ü"}


def test_an_error_has_always_all_four_fields() -> None:
    body = ErrorBody.of(RequestError("no", "messages")).model_dump()
    assert body == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "messages", "code": "invalid_request"}
    }


@pytest.mark.parametrize("body", [{"prompt": "hi"}, {"messages": "hi"}])
def test_a_prompt_alone_is_told_how_to_be_a_message(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r'write "messages": \[\{"role": "user", "content": "…"\}\]') as refused:
        check_body(body)
    assert "hi" not in str(refused.value)
