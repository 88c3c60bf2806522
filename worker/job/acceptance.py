"""Whether an answer satisfies the `accept` conditions of its chain. Pure.

An unacceptable answer is a failure of class `bad_response`: it was paid for, and the next step is tried. The reason
names the violated condition and never repeats a word of the answer.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from understudy.models.failure import Failure, FailureClass
from understudy.models.request.needs import schema_of
from understudy.models.routing.chain import CHAT
from understudy.models.routing.policy import Acceptance
from understudy.models.schemas.json_schema import CHECK_S, TooCostly, Uncheckable, fault_in

WITH_CALLS = ("tool_calls", "function_call")

Choice = Mapping[str, Any]
Reason = str


def unacceptable(
    accept: frozenset[Acceptance], endpoint: str, body: Mapping[str, Any], completion: Mapping[str, Any]
) -> Failure | None:
    """Why the answer to a request is unacceptable; None if it is acceptable. Embeddings always are.

    Blocks if `json_schema` is among the conditions: see `models.schemas.json_schema` for how long.
    """
    if endpoint != CHAT:
        return None
    for name, rule in RULES.items():
        for choice in completion["choices"] if name in accept else ():
            reason = rule(choice, body)
            if reason is not None:
                return _failure(name, reason)
    return None


def _failure(name: Acceptance, reason: Reason) -> Failure:
    """Retried only if the same model may well answer differently."""
    return Failure(
        FailureClass.BAD_RESPONSE,
        f"the answer is not accepted: {reason}",
        status=200,
        code=name,
        possibly_billed=True,
        repeatable=name not in NOT_REPEATABLE,
    )


def _refused(choice: Choice, _body: Mapping[str, Any]) -> Reason | None:
    refused = choice["message"].get("refusal") or choice["finish_reason"] == "content_filter"
    return "the model refused" if refused else None


def _truncated(choice: Choice, _body: Mapping[str, Any]) -> Reason | None:
    return "it was cut at the limit of output tokens" if choice["finish_reason"] == "length" else None


def _empty(choice: Choice, _body: Mapping[str, Any]) -> Reason | None:
    message = choice["message"]
    says_something = any(map(_is_something, _contents(message)))
    return None if says_something else "it is empty"


def _contents(message: Mapping[str, Any]) -> Iterator[Any]:
    yield from (message.get(name) for name in ("content", "refusal", *WITH_CALLS, "audio", "images"))


def _is_something(content: Any) -> bool:
    return bool(content.strip()) if isinstance(content, str) else bool(content)


def _misshapen(choice: Choice, body: Mapping[str, Any]) -> Reason | None:
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    message = choice["message"]
    if kind not in ("json_object", "json_schema") or any(message.get(name) for name in WITH_CALLS):
        return None
    try:
        value = orjson.loads(message.get("content") or "")
    except orjson.JSONDecodeError:
        return "it is not JSON, as response_format requires"
    if kind == "json_object":
        return None if isinstance(value, dict) else "it is not a JSON object, as response_format requires"
    return _against_schema(schema_of(wanted) or {}, value)


def _against_schema(schema: Mapping[str, Any], value: Any) -> Reason | None:
    try:
        fault = fault_in(value, schema, CHECK_S)
    except Uncheckable as why:
        return f"its schema cannot be checked: {why}"
    except TooCostly:
        return "checking it against its schema takes too long"
    return None if fault is None else f"it violates its schema at {fault}"


RULES: Mapping[Acceptance, Callable[[Choice, Mapping[str, Any]], Reason | None]] = {
    "not_refused": _refused,
    "not_truncated": _truncated,
    "not_empty": _empty,
    "json_schema": _misshapen,
}
"""In this order, so that the first reason explains the others: a truncated answer is not valid JSON either."""

NOT_REPEATABLE: frozenset[Acceptance] = frozenset({"not_truncated", "not_refused"})
"""The same limit truncates the same model again, and a model that refuses does so again: another one is tried at
once."""
