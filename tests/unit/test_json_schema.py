"""Answers checked against a caller's schema: what is found, what is refused, and that every check ends."""

import time
from typing import Any

import pytest

from models.json_schema import MOST_BYTES, TooCostly, Uncheckable, checker_for, is_schema

ITEM = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
ORDER = {"type": "object", "properties": {"items": {"type": "array", "items": ITEM}}, "additionalProperties": ITEM}


def fault(schema: dict[str, Any], value: Any, seconds: float = 1.0) -> str | None:
    found = checker_for(schema).fault(value, seconds)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"items": [{"price": 1}]}, None),
        ({"items": [{"price": 1}, {"price": "SECRET"}]}, "$.items[1].price (type)"),
        ({"items": [{"SECRET": 1}]}, "$.items[0].price (required)"),
        ({"SECRET": {"price": "SECRET"}}, "$.*.price (type)"),
        ("SECRET", "$ (type)"),
    ],
)
def test_a_fault_is_told_by_its_place_and_never_by_a_word_of_the_answer(value: Any, found: str | None) -> None:
    assert fault(ORDER, value) == found


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "pattern": "^[a-z]+$"}, "abc", "ABC"),
        ({"type": "string", "pattern": "^(?!un)"}, "even", "uneven"),
        ({"type": "array", "uniqueItems": True}, [{"a": 1}, {"a": 2}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}, 1, "1"),
        ({"anyOf": [{"type": "null"}, {"enum": ["a", "b"]}]}, "b", "c"),
        ({"$id": "https://example.com/s", "$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}, 1, "1"),
        ({"propertyNames": {"pattern": "^[a-z]+$"}}, {"ab": 1}, {"A": 1}),
    ],
)
def test_what_schemas_say_is_kept_to(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert (fault(schema, good), fault(schema, bad) is None) == (None, False)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "http://169.254.169.254/latest"}, "outside the schema"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "outside the schema"),
        ({"$ref": "#/$defs/nothing"}, "refers to nothing"),
        ({"patternProperties": {"(a+)+$": {}}}, "'patternProperties' is not checked"),
        ({"items": {"unevaluatedProperties": False}}, "'unevaluatedProperties' is not checked"),
        ({"pattern": "("}, "no regular expression"),
        ({"enum": ["x" * MOST_BYTES]}, "the limit is 100,000"),
        (nested(450), "nested too deep"),
    ],
)
def test_a_schema_that_has_no_bounds_is_refused_with_the_reason(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(Uncheckable, match=why):
        checker_for(schema)


def test_names_that_look_like_words_of_json_schema_are_the_callers() -> None:
    schema = {"properties": {"patternProperties": {"type": "string"}, "$ref": {"type": "string"}}}
    assert fault(schema, {"patternProperties": 1}) == "$.patternProperties (type)"


def doubling(levels: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": {**definitions, f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [(doubling(40), 1), ({"pattern": "(a|aa)+$"}, "a" * 80 + "b"), ({"$ref": "#"}, 1)],
)
def test_a_hostile_schema_costs_no_more_than_its_time(schema: dict[str, Any], value: Any) -> None:
    began = time.thread_time()
    with pytest.raises((TooCostly, Uncheckable)):
        checker_for(schema).fault(value, 0.1)
    assert time.thread_time() - began < 1.0


def test_many_items_are_compared_in_a_moment() -> None:
    began = time.thread_time()
    assert fault({"uniqueItems": True}, [{"n": number} for number in range(50_000)]) is None
    assert time.thread_time() - began < 1.0


def test_a_schema_that_is_none_is_known_as_such() -> None:
    assert is_schema(ORDER) and not is_schema({"type": "no type"})
    with pytest.raises(Uncheckable):
        fault({"properties": ["a"]}, {"a": 1})
