"""The mock's answers: repeatable, of the requested length, valid against the requested schema."""

from hashlib import sha256
from typing import Any

import jsonschema
import orjson
import pytest

from understudy.worker.mock.answers import Reply, compose, instance
from understudy.worker.mock.calls import ReceivedCall, Tool
from understudy.worker.mock.config import Answers
from understudy.worker.mock.errors import duration


def reply(prompt: str = "hello", answers: dict[str, Any] | None = None, seed: int = 1, **about: Any) -> Reply:
    asked = ReceivedCall("alpha", "openai", "m", "sk", prompt, sha256(prompt.encode()).digest(), 400, **about)
    return compose(asked, Answers.model_validate(answers or {}), seed)


def test_equal_requests_get_equal_answers_and_others_get_others() -> None:
    assert reply("a") == reply("a")
    assert reply("a").texts != reply("b").texts


def test_input_tokens_are_a_quarter_of_the_bytes() -> None:
    assert reply().input_tokens == 100


def test_a_template_can_echo_a_prompt_that_holds_braces() -> None:
    assert reply("say {model} {x}", {"text": "{provider}: {prompt}"}).texts == ("alpha: say {model} {x}",)


@pytest.mark.parametrize("tokens", [1, 5, 50, 3000])
def test_a_fixed_number_of_output_tokens_is_met(tokens: int) -> None:
    made = reply(answers={"output_tokens": tokens})
    assert made.output_tokens == tokens
    assert len(made.texts[0]) == tokens * 4


def test_random_output_tokens_stay_in_their_range_and_depend_on_the_seed() -> None:
    spread = {"output_tokens": {"kind": "uniform", "low": 20, "high": 40}}
    counts = [reply(f"p{number}", spread).output_tokens for number in range(200)]
    assert min(counts) >= 20
    assert max(counts) <= 40
    assert len(set(counts)) > 10
    assert counts != [reply(f"p{number}", spread, seed=2).output_tokens for number in range(200)]


def test_an_answer_above_max_tokens_is_cut_and_says_length() -> None:
    made = reply(answers={"output_tokens": 50}, max_tokens=8)
    assert (made.finish, made.output_tokens, len(made.texts[0])) == ("length", 8, 32)
    assert reply(answers={"output_tokens": 8}, max_tokens=8).finish == "stop"


def test_reasoning_tokens_are_part_of_the_output_and_cached_ones_of_the_input() -> None:
    made = reply(answers={"output_tokens": 10, "reasoning_tokens": 30, "cached_share": 0.25})
    assert (made.output_tokens, made.reasoning_tokens, made.cached_tokens) == (40, 30, 25)


def test_several_choices_differ() -> None:
    assert len(set(reply(n=3).texts)) == 3


TOOLS = (Tool("first", {}), Tool("second", {"type": "object", "properties": {"x": {"type": "integer"}}}))


@pytest.mark.parametrize(
    ("choice", "mode", "called"),
    [
        ("auto", "when_required", None),
        ("required", "when_required", "first"),
        ("=second", "when_required", "second"),
        ("auto", "always", "first"),
        ("none", "always", None),
        ("required", "never", None),
    ],
)
def test_a_tool_is_called_when_it_must_be(choice: str, mode: str, called: str | None) -> None:
    made = reply(answers={"tools": mode}, tools=TOOLS, tool_choice=choice)
    assert (made.tool_call.name if made.tool_call else None) == called
    assert made.finish == ("tool_calls" if called else "stop")


SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 40},
            "age": {"type": "integer", "minimum": 18, "multipleOf": 5},
            "mood": {"enum": ["good", "bad"]},
            "when": {"type": "string", "format": "date-time"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "parent": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}]},
            "ratio": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "maybe": {"type": ["null", "boolean"]},
        },
        "required": ["name", "age", "mood", "when", "tags", "parent", "ratio", "maybe"],
        "additionalProperties": False,
        "$defs": {"Person": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}},
    },
    {"$ref": "#/$defs/Node", "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}},
    {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 3}}}]},
    {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
        "minItems": 3,
        "items": {"type": "null"},
    },
    {"type": "number", "maximum": -3},
    {"type": "string", "maxLength": 3},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_json_that_is_answered_is_valid_against_the_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(orjson.loads(reply(schema=schema).texts[0]), schema)


def test_a_schema_that_needs_itself_without_end_is_cut_off() -> None:
    endless = {
        "$ref": "#/$defs/N",
        "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}},
    }
    assert "n" in instance(endless, "x")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.012, "12ms"), (1.5, "1.5s"), (60, "1m0s"), (578.016, "9m38.016s"), (3600, "1h0m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
