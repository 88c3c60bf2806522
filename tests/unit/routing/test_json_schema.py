"""Answers checked against a caller's schema: what is found, what is refused, and that every check ends."""

import asyncio
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import psutil
import pytest

from understudy.models.schemas.json_schema import (
    MOST_BYTES,
    SchemaTurns,
    TooCostly,
    Uncheckable,
    check_schema,
    fault_in,
    is_schema,
)
from understudy.models.schemas.process import NoJudge, OutOfTime, SchemaProcess, the_judge

ITEM = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
ORDER = {"type": "object", "properties": {"items": {"type": "array", "items": ITEM}}, "additionalProperties": ITEM}


def fault(schema: dict[str, Any], value: Any, seconds: float = 1.0) -> str | None:
    return fault_in(value, schema, seconds)


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
        ({"pattern": "("}, "not a regular expression"),
        ({"patternProperties": {"(": {}}}, "not a regular expression"),
        ({"enum": ["x" * MOST_BYTES]}, "the limit is 100,000"),
        (nested(450), "nested too deeply"),
        (
            {"items": {"properties": {"SECRET": {"required": True}}}},
            r"not a valid JSON schema at \$.items.properties.\*.required",
        ),
    ],
)
def test_a_schema_that_is_of_no_use_is_refused_with_the_reason(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(Uncheckable, match=why):
        check_schema(schema)


def test_names_that_look_like_words_of_json_schema_are_the_callers() -> None:
    schema = {"properties": {"patternProperties": {"type": "string"}, "$ref": {"type": "string"}}}
    assert fault(schema, {"patternProperties": 1}) == "$.patternProperties (type)"


def doubling(levels: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": {**definitions, f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def chained(length: int) -> dict[str, Any]:
    """It overflows the engine's stack."""
    definitions = {f"d{number}": {"allOf": [{"$ref": f"#/$defs/d{number + 1}"}]} for number in range(length)}
    return {"$defs": {**definitions, f"d{length}": {}}, "$ref": "#/$defs/d0", "unevaluatedProperties": False}


DIALECT = "https://json-schema.org/draft/2020-12/schema"
ANCHORS = {"$defs": {"a": {"$anchor": "x"}}, "properties": {f"p{number}": {"$ref": "#x"} for number in range(2500)}}
COUNTS = {"allOf": [{"pattern": f"^.{{1,9999}}{number}$"} for number in range(500)]}
REPEATS = "((((a{1000}){1000}){1000}){1000}){1000}"
MANY_A = "a" * 40 + "!"

HOSTILE = {
    "doubling": (doubling(40), 1),
    "chained": (chained(1500), {"a": 1}),
    "its own": ({"$ref": "#"}, 1),
    "repeats": ({"pattern": REPEATS}, "a"),
    "repeats in a lookahead": ({"pattern": f"(?!x){REPEATS}"}, "a"),
    "counts": (COUNTS, "a"),
    "groups": ({"pattern": "(" * 3000 + "a" + ")" * 3000}, "a"),
    "alternatives": ({"pattern": "(a|aa)+$"}, "a" * 80 + "b"),
    "lookaheads": ({"pattern": "(?=a.*b)x"}, "a" * 300_000),
    "backreferences": ({"pattern": r"^(a*)(a*)(a*)(a*)\1\2\3\4b"}, "a" * 3000),
    "names": ({"patternProperties": {"^(a+)+$": {}}}, {MANY_A: 1}),
    "a dialect below the root": ({"properties": {"a": {"$schema": DIALECT, "pattern": "^(a+)+$"}}}, {"a": MANY_A}),
    "behind examples": ({"$ref": "#/examples/0", "examples": [{"pattern": "^(?:(?!b)a+)+$"}]}, MANY_A),
    "anchors": (ANCHORS, {}),
    "types": ({"type": [{"a": number} for number in range(5000)]}, 1),
    "much memory": ({"uniqueItems": True}, [[number] for number in range(3_000_000)]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_costs_this_process_next_to_nothing_and_the_next_is_checked(name: str) -> None:
    schema, value = HOSTILE[name]
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with suppress(TooCostly, Uncheckable):
        fault_in(value, schema, 0.1)
    assert time.thread_time() - began < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000, "kB"
    assert fault({"type": "integer"}, "a") == "$ (type)"


def test_what_never_ends_is_ended_by_its_deadline() -> None:
    with pytest.raises(TooCostly):
        fault_in(1, doubling(40), 0.1)
    with pytest.raises(Uncheckable, match="takes too long"):
        check_schema(COUNTS)


def test_a_deadline_holds_also_where_who_starts_the_process_ignores_its_signal() -> None:
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    judge = SchemaProcess()
    try:
        with pytest.raises(OutOfTime):
            judge.ask(orjson.dumps(doubling(40)), b"1", 0.1)
    finally:
        signal.signal(signal.SIGPROF, before)
        judge.close()


@pytest.mark.parametrize("failure", [BlockingIOError("no more processes"), MemoryError("no room for another")])
def test_where_no_process_can_be_started_the_schema_is_not_judged_and_the_next_one_is_asked(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    judge = SchemaProcess()
    with monkeypatch.context() as no_more:
        no_more.setattr(subprocess, "Popen", raising(failure))
        with pytest.raises(NoJudge, match="try again later"):
            judge.ask(b"{}", None, 0.1)
    assert judge.ask(b"{}", None, 0.1) is not None
    judge.close()


def test_where_no_thread_can_be_started_nothing_is_said_either(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = SchemaProcess()
    with monkeypatch.context() as no_more:
        no_more.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
        with pytest.raises(NoJudge):
            judge.ask(b"{}", None, 0.1)
        with pytest.raises(NoJudge):
            asyncio.run(SchemaTurns().run("acme", len, "abc"))
    assert judge.ask(b"{}", None, 0.1) is not None
    judge.close()


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_one_that_dies_of_what_others_left_behind_is_asked_again() -> None:
    assert fault({"type": "integer"}, 1) is None
    process = the_judge()._process
    assert process is not None
    process.kill()
    assert fault({"type": "integer"}, "a") == "$ (type)"


def test_the_process_that_judges_has_no_secret_and_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    judge = SchemaProcess()
    judge.ask(b"{}", None, 0.1)
    process = judge._process
    assert process is not None
    watched = psutil.Process(process.pid)
    assert "OPENAI_API_KEY" not in watched.environ()
    assert watched.rlimit(psutil.RLIMIT_NOFILE) == (3, 3)
    judge.close()


def test_many_items_are_compared_in_a_moment() -> None:
    began = time.thread_time()
    assert fault({"uniqueItems": True}, [{"n": number} for number in range(50_000)]) is None
    assert time.thread_time() - began < 1.0


def test_a_schema_that_is_none_is_known_as_such() -> None:
    assert is_schema(ORDER) and is_schema({"pattern": "("}) and not is_schema({"type": "no type"})


ADDRESS = {"type": "object", "properties": {"zip": {"type": "string", "pattern": r"^\d{5}$"}}, "required": ["zip"]}
STRICT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^(?=.*[A-Z])[\p{L} .'-]{1,40}$", "description": "a name"},
        "mail": {"type": "string", "format": "email", "maxLength": 20},
        "kind": {"enum": ["a", "b"]},
        "address": {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "mail", "kind", "address", "tags"],
    "additionalProperties": False,
    "$defs": {"address": ADDRESS},
}
GOOD = {"name": "Ann", "mail": "a@b.c", "kind": "a", "address": {"zip": "12345"}, "tags": ["x"]}
LIST = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}, {"type": "integer"}]}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (STRICT, GOOD, {**GOOD, "name": "ann"}),
        (STRICT, {**GOOD, "address": None}, {**GOOD, "address": {"zip": "1234"}}),
        (STRICT, {**GOOD, "name": "Zoë Ä"}, {**GOOD, "tags": ["x", "y", "z"]}),
        (LIST, {"next": {"next": {}}}, {"next": {"next": 1}}),
        (DRAFT_7, ["a", 1], [1, "a"]),
        ({**ADDRESS, "$schema": "https://example.com/my-own"}, {"zip": "12345"}, {"zip": "x"}),
        ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_a": 1}, {"n_a": "1"}),
        ({"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
        ({"type": "string", "nullable": True, "x-order": 1}, "a", None),
    ],
)
def test_the_schemas_of_structured_outputs_are_checked(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert (fault(schema, good), fault(schema, bad) is None, is_schema(schema)) == (None, False, True)


def test_turns_go_by_tenants_so_that_one_waits_for_none_of_anothers_queue() -> None:
    asyncio.run(_turns())


async def _turns() -> None:
    turns, gate = SchemaTurns(), threading.Event()
    queue = [asyncio.create_task(turns.run("rival", gate.wait)) for _ in range(20)]
    try:
        async with asyncio.timeout(20):
            assert await turns.run("acme", fault, {"type": "integer"}, 1) is None
        assert not any(task.done() for task in queue)
    finally:
        gate.set()
        await asyncio.gather(*queue)
