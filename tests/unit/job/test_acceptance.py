"""What an answer must be if its chain requires it."""

from typing import Any, get_args

import pytest

from understudy.models.failure import FailureClass
from understudy.models.routing.chain import CHAT, EMBEDDINGS
from understudy.models.routing.policy import Acceptance
from understudy.worker.job.acceptance import unacceptable

ACCEPTANCE: tuple[Acceptance, ...] = get_args(Acceptance)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AS_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}
AS_OBJECT = {"response_format": {"type": "json_object"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def choice(content: Any = "yes", finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"finish_reason": finish, "message": {"role": "assistant", "content": content, "refusal": None, **message}}


def reason(*choices: dict[str, Any], body: dict[str, Any] | None = None, accept: Any = ACCEPTANCE) -> str | None:
    failure = unacceptable(frozenset(accept), CHAT, body or {}, {"choices": choices})
    return None if failure is None else failure.message.removeprefix("the answer is not accepted: ")


@pytest.mark.parametrize(
    ("of", "body", "why"),
    [
        (choice(), {}, None),
        (choice(None, "tool_calls", tool_calls=[CALL]), AS_SCHEMA, None),
        (choice('{"n": 1}'), AS_SCHEMA, None),
        (choice("[1]"), {"response_format": {"type": "text"}}, None),
        (choice(" \n"), {}, "it is empty"),
        (choice(None), {}, "it is empty"),
        (choice("half of", "length"), {}, "it was cut at the limit of output tokens"),
        (choice(None, refusal="I will not."), {}, "the model refused"),
        (choice("some", "content_filter"), {}, "the model refused"),
        (choice("SECRET"), AS_OBJECT, "it is not JSON, as response_format requires"),
        (choice("[1]"), AS_OBJECT, "it is not a JSON object, as response_format requires"),
        (choice('{"n": "SECRET"}'), AS_SCHEMA, "it violates its schema at $.n (type)"),
        (choice('{"n": 1', "length"), AS_SCHEMA, "it was cut at the limit of output tokens"),
    ],
)
def test_an_answer_is_judged_and_the_reason_repeats_no_word_of_it(
    of: dict[str, Any], body: dict[str, Any], why: str | None
) -> None:
    assert reason(of, body=body) == why


def test_only_what_the_chain_names_is_looked_at() -> None:
    assert reason(choice("", "length"), accept=["not_refused"]) is None
    assert reason(choice("", "length"), accept=["not_empty"]) == "it is empty"


def test_every_choice_must_be_acceptable() -> None:
    assert reason(choice(), choice("")) == "it is empty"


def test_embeddings_are_not_judged() -> None:
    assert unacceptable(frozenset(ACCEPTANCE), EMBEDDINGS, {}, {"data": []}) is None


@pytest.mark.parametrize(
    ("of", "again"),
    [(choice(""), True), (choice("no"), True), (choice("a", "length"), False), (choice("", refusal="no"), False)],
)
def test_the_same_model_is_asked_again_only_where_it_may_answer_otherwise(of: dict[str, Any], again: bool) -> None:
    failure = unacceptable(frozenset(ACCEPTANCE), CHAT, AS_SCHEMA, {"choices": [of]})
    assert failure is not None
    assert (failure.cls, failure.repeatable, failure.possibly_billed) == (FailureClass.BAD_RESPONSE, again, True)
    assert failure.body is None


def test_a_schema_that_takes_forever_does_not_pass_an_answer() -> None:
    levels = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(40)}
    schema = {"$defs": {**levels, "d40": {}}, "$ref": "#/$defs/d0"}
    body = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}
    assert reason(choice("1"), body=body) == "checking it against its schema takes too long"
