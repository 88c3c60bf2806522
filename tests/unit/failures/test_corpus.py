"""The measuring tool: it must notice every kind of disagreement."""

from pathlib import Path
from typing import Any

import corpus
import orjson
import pytest

ANSWER: dict[str, Any] = {
    "id": "plain",
    "provider": "openai",
    "protocol": "openai",
    "path": "/v1/chat/completions",
    "request": {"model": "m"},
    "status": 200,
    "headers": {},
    "response": {
        "choices": [{"finish_reason": "stop", "message": {"content": "one two"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    },
    "expect": {
        "finish_reason": "stop",
        "content": "one two",
        "tool_calls": [],
        "refusal": "",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    },
    "unsure": [],
}
ERROR: dict[str, Any] = {
    "id": "limit",
    "provider": "openai",
    "protocol": "openai",
    "status": 429,
    "headers": {"retry-after": "20"},
    "body": '{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}',
    "expect": "rate_limit",
    "hint_s": 20,
}


def expecting(**changes: Any) -> dict[str, Any]:
    return ANSWER | {"expect": ANSWER["expect"] | changes}


def test_an_answer_that_agrees_has_no_mismatch() -> None:
    assert corpus.check_answer(ANSWER) == []


@pytest.mark.parametrize(
    ("field", "value"), [("finish_reason", "length"), ("content", "three"), ("prompt_tokens", 4), ("refusal", "No")]
)
def test_each_field_that_differs_is_named_unless_the_label_is_unsure(field: str, value: Any) -> None:
    case = expecting(**{field: value})
    assert [name for name, _, _ in corpus.check_answer(case)] == [field]
    assert corpus.check_answer(case | {"unsure": [field]}) == []


def test_content_parts_must_appear_in_their_order() -> None:
    assert corpus.check_answer(expecting(content_parts=["one", "two"])) == []
    assert corpus.check_answer(expecting(content_parts=["two", "one"]))


def test_an_expected_failure_that_is_answered_is_a_mismatch_and_the_other_way_round() -> None:
    broken = {"choices": [{"finish_reason": "error", "message": {"content": ""}}]}
    assert corpus.check_answer(expecting(finish_reason="failure"))
    assert corpus.check_answer(ANSWER | {"response": broken})
    assert corpus.check_answer(expecting(finish_reason="failure") | {"response": broken}) == []


def test_a_missing_choice_is_a_mismatch() -> None:
    two: list[dict[str, Any]] = [{"finish_reason": "stop", "content": "one two", "tool_calls": [], "refusal": None}] * 2
    assert {name.split(".")[0] for name, _, _ in corpus.check_answer(expecting(choices=two))} == {"choices[1]"}


def test_an_error_is_checked_for_its_class_and_its_hint() -> None:
    assert corpus.check_error(ERROR) == []
    assert [name for name, _, _ in corpus.check_error(ERROR | {"expect": "quota", "hint_s": 7})] == ["class", "hint_s"]


def test_a_success_that_is_an_error_is_read_by_the_adapter() -> None:
    case = ERROR | {"status": 200, "hint_s": None, "expect": "rate_limit"}
    assert corpus.check_error(case) == []
    assert corpus.check_error(case | {"body": '{"error":{"message":"no"}}', "expect": "bad_response"}) == []
    assert corpus.check_error(case | {"body": orjson.dumps(ANSWER["response"]).decode()})


def test_a_label_that_we_dispute_is_replaced_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(corpus.DISPUTED, ERROR["id"], "rate_limit")
    assert corpus.check_error(ERROR | {"expect": "quota"}) == []
    monkeypatch.setitem(corpus.DISPUTED, ERROR["id"], "quota")
    assert corpus.check_error(ERROR) == [("class", "quota", "rate_limit")]


def test_the_tool_prints_what_agrees_and_fails_when_anything_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "errors.jsonl").write_bytes(orjson.dumps(ERROR) + b"\n")
    (tmp_path / "answers.jsonl").write_bytes(orjson.dumps(ANSWER) + b"\n" + orjson.dumps(expecting(content="x")))
    assert corpus.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "errors: 1 of 1",
        "answers: 1 of 2",
        "  plain: content: expected 'x', got 'one two'",
    ]
    assert corpus.main([]) == 2
