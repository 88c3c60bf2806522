"""Random and mutated requests, schemas, patterns and answers: each takes less than a second and little memory, and the
next one is served.

`EXAMPLES=all` tries five times as many.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.schemas.json_schema import TooCostly, Uncheckable, fault_in, is_schema
from understudy.producer.ingest.input_rows import Row, Shape
from understudy.producer.ingest.intake import BadLine, JobReader
from understudy.worker.failures import classify
from understudy.worker.job.acceptance import unacceptable
from understudy.worker.providers.base import Call, CannotExpress, Endpoint
from understudy.worker.providers.registry import ADAPTERS, adapter_for

SETTINGS = Settings.model_validate({"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
MOST_S = 1.0
MOST_KB = 300_000

PIECES = [
    "a",
    "(",
    ")",
    "[a-z]",
    "+",
    "*",
    "{1,50}",
    "{0,1000}",
    "|",
    "^",
    "$",
    "(?=",
    "(?!",
    "(?:",
    r"\1",
    r"\p{L}",
    ".",
]
patterns = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)
places = st.sampled_from(
    ["#", "#/$defs/a", "#/$defs/b", "#/examples/0", "#/enum", "#x", "http://h/s", "#/properties/a"]
)
whole = st.integers(-(2**63), 2**63)  # what our JSON can express
types = st.sampled_from(["object", "array", "string", "integer", "null", "nothing"])
plain = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
leaves = st.one_of(
    st.fixed_dictionaries({"type": types}),
    st.fixed_dictionaries({"type": st.lists(types | plain, max_size=3)}),
    st.fixed_dictionaries({"pattern": patterns}),
    st.fixed_dictionaries({"$ref": places}),
    st.fixed_dictionaries({"$dynamicRef": places, "$dynamicAnchor": st.just("x")}),
    st.fixed_dictionaries({"enum": st.lists(plain, max_size=4), "uniqueItems": st.booleans()}),
    st.fixed_dictionaries({"$schema": st.sampled_from(["https://json-schema.org/draft/2020-12/schema", "http://x/y"])}),
    st.dictionaries(st.sampled_from(["minLength", "items", "required", "const", "$id", "default"]), plain, max_size=3),
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    many = st.sampled_from([1, 2, 40])
    return st.one_of(
        st.builds(
            lambda word, several: {word: several}, st.sampled_from(["properties", "$defs", "definitions"]), names
        ),
        st.builds(
            lambda word, one, times: {word: [one] * times}, st.sampled_from(["allOf", "anyOf", "oneOf"]), inner, many
        ),
        st.builds(lambda word, one: {word: one}, st.sampled_from(["items", "not", "unevaluatedProperties"]), inner),
        st.builds(lambda pattern, one: {"patternProperties": {pattern: one}}, patterns, inner),
        st.builds(lambda one, other: {**one, **other}, inner, inner),
        st.builds(lambda one: {"examples": [one], "$ref": "#/examples/0"}, inner),
    )


schemas = st.recursive(leaves, larger, max_leaves=10)
values = plain | st.text(alphabet="ab!", max_size=200) | st.sampled_from(["a" * 5_000 + "!", "ab" * 2_000, [[1]] * 500])
texts = st.builds(lambda piece, times: piece * times, st.text(max_size=6), st.sampled_from([1, 50, 5_000]))


def bodies_with(schema: Any, extra: Any) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    messages = [{"role": "user", "content": "x"}]
    return {"model": "lead/m", "messages": messages, "accept": ["json_schema"], "response_format": wanted, **extra}


words = [
    "messages",
    "tools",
    "tool_choice",
    "response_format",
    "stop",
    "n",
    "max_tokens",
    "fallbacks",
    "metadata",
    "user",
]
bodies = st.builds(bodies_with, schemas, st.dictionaries(st.sampled_from(words), plain | texts, max_size=2))


@contextmanager
def within_bounds() -> Iterator[None]:
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    yield
    assert time.thread_time() - began < MOST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_KB


@examples(150)
@given(schemas, values)
def test_schemas_and_values(schema: dict[str, Any], value: Any) -> None:
    with within_bounds(), suppress(Uncheckable, TooCostly):
        is_schema(schema)
        fault_in(value, schema, 0.05)
    assert fault_in(1, {"type": "integer"}, 1.0) is None


@examples(150)
@given(bodies)
def test_bodies_are_accepted_or_refused(body: dict[str, Any]) -> None:
    with within_bounds():
        made = JobReader(Shape(), SETTINGS).job(1, Row(body))
    assert isinstance(made, NewJob | BadLine)


@pytest.mark.parametrize("protocol", ADAPTERS)
@examples(60)
@given(body=bodies)
def test_bodies_are_translated_or_cannot_be(protocol: str, body: dict[str, Any]) -> None:
    made = JobReader(Shape(), SETTINGS).job(1, Row({**body, "accept": []}))
    if isinstance(made, NewJob):
        with within_bounds(), suppress(CannotExpress):
            call = Call(protocol, "m", orjson.loads(made.body))
            adapter_for(protocol).request(call, Endpoint("http://127.0.0.1:1", "secret", {}, {"region": "us-east-1"}))


@examples(100)
@given(
    schemas, values | texts, st.dictionaries(st.sampled_from(["choices", "usage", "id", "model"]), plain, max_size=1)
)
def test_answers_are_read_or_refused(schema: dict[str, Any], said: Any, mutated: dict[str, Any]) -> None:
    content = said if isinstance(said, str) else orjson.dumps(said).decode()
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    sent = orjson.dumps({"id": "x", "model": "m", "choices": [choice], "usage": {}, **mutated})
    call = Call("vllm", "m", bodies_with(schema, {}))
    with within_bounds(), suppress(Exception):  # any exception means that there is no answer (`worker.job.exchange`)
        answer = adapter_for("openai").answer(call, 200, {}, sent)
        unacceptable(frozenset({"json_schema"}), call.endpoint, call.body, answer.completion)


@examples(100)
@given(st.sampled_from([302, 400, 403, 429, 500]), plain | texts | patterns)
def test_refusals_are_classified(status: int, said: Any) -> None:
    with within_bounds():
        for body in (orjson.dumps(said), orjson.dumps({"error": {"message": said, "code": said}}), str(said).encode()):
            classify("openai", "openai", status, {}, body, 0.0)
