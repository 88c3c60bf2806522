"""Load reported inside a 200 is load, a model's slip is not the caller's fault, and the rest is unchanged."""

import json
from typing import Any, NamedTuple

import pytest
from failure_cases import NOW, claude, error, google, wrapped

from understudy.models.failure import Failure, FailureClass
from understudy.worker.failures import classify, classify_success
from understudy.worker.providers.base import BadAnswer, Call
from understudy.worker.providers.registry import adapter_for

F = FailureClass


def told(body: Any, provider: str = "gw", headers: dict[str, str] | None = None) -> Failure | None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify_success(provider, "openai", headers or {}, content, NOW)


class Load(NamedTuple):
    name: str
    body: Any
    cls: FailureClass
    hint_s: float | None = None


def choice(**fields: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Half an"}, **fields}]}


def events(*each: Any) -> bytes:
    return b"".join(b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n\n" for one in each)


LOADS = [
    Load("a number", error("Slow down, please.", code=429), F.RATE_LIMIT),
    Load("a number as text", error("Slow down, please.", code="429"), F.RATE_LIMIT),
    Load("a number beside the error", {"status": 503, "error": "try later"}, F.OVERLOADED),
    Load(
        "a router's, with the reason inside",
        wrapped(429, "vendor/x is temporarily rate-limited upstream."),
        F.RATE_LIMIT,
    ),
    Load("a router's, with an error inside", wrapped(502, error("Engine is overloaded", "server_error")), F.OVERLOADED),
    Load("a wait in words", error("Rate limit reached. Please try again in 7s.", code=429), F.RATE_LIMIT, 7.0),
    Load("a wait in a field", {"error": {"code": 429, "message": "no", "retry_after": 12}}, F.RATE_LIMIT, 12.0),
    Load("a wait of Google's", google(429, "RESOURCE_EXHAUSTED", "no", {"retryDelay": "9s"}), F.RATE_LIMIT, 9.0),
    Load("an array around it", [google(503, "UNAVAILABLE", "no capacity")], F.OVERLOADED),
    Load("a gateway's timeout", error("upstream timed out", code=504), F.SERVER),
    Load("a request that timed out", error("took too long", code=408), F.TIMEOUT),
    Load("a server error", error("Internal server error", code=500), F.SERVER),
    Load("in words only", claude("overloaded_error", "Overloaded"), F.OVERLOADED),
    Load("a code in words only", error("slow", code="rate_limit_exceeded"), F.RATE_LIMIT),
    Load("a flat error", {"object": "error", "message": "too many requests", "code": 429}, F.RATE_LIMIT),
    Load("in a choice", choice(finish_reason="error", error={"code": 503, "message": "no"}), F.OVERLOADED),
    Load("in a choice, 429", choice(finish_reason=None, error={"code": 429, "message": "no"}), F.RATE_LIMIT),
    Load("an empty balance", error("no", "insufficient_quota", 429), F.QUOTA),
    Load("an event", events(error("Our servers are overloaded.", code=529)), F.OVERLOADED),
    Load("an event after others", events(choice(delta={}), error("x", code=503), b"[DONE]"), F.OVERLOADED),
    Load("an event in a choice", events(choice(error={"code": 502, "message": "x"}), b"[DONE]"), F.SERVER),
    Load("blank lines", b"\n\n\n", F.OVERLOADED),
    Load("comments of a stream", b": keep-alive\n\n: keep-alive\n\n", F.OVERLOADED),
]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_load_that_is_told_inside_a_200_is_judged_as_its_status_would_be(load: Load) -> None:
    failure = told(load.body)
    assert failure is not None and failure.cls is load.cls, failure
    assert (failure.status, failure.hint_s) == (200, load.hint_s)


def test_it_says_what_was_answered() -> None:
    failure = told(wrapped(429, "vendor/x is temporarily rate-limited upstream."))
    assert failure is not None
    assert failure.message == "answered 200 with an error: vendor/x is temporarily rate-limited upstream."
    assert not failure.possibly_billed


def test_a_header_may_say_for_how_long() -> None:
    failure = told(error("no", code=429), headers={"Retry-After": "30"})
    assert failure is not None and failure.hint_s == 30


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b"{",
        b"null",
        b'"rate limit exceeded"',
        error("The model was not found.", code=404),
        error("Something went wrong.", "server_error"),
        error("Tool choice is required, but the model did not call a tool.", code="tool_use_failed", status_code=400),
        choice(finish_reason="error"),
        choice(finish_reason="stop", message={"content": "429: rate limit exceeded, overloaded"}),
        choice(finish_reason="stop", error=None),
        {"choices": [], "usage": {"total_tokens": 429}},
        {"id": "x", "status": 503, "choices": []},
        events(choice(delta={"content": "the server is overloaded"}), b"[DONE]"),
        events(b"[DONE]"),
    ],
    ids=repr,
)
def test_an_error_that_reports_no_load_stays_a_bad_response(body: Any) -> None:
    assert told(body) is None


@pytest.mark.parametrize(
    ("reason", "cls"),
    [
        ("insufficient_system_resource", F.OVERLOADED),
        ("OVERLOADED", F.OVERLOADED),
        ("no_capacity", F.OVERLOADED),
        ("rate_limit", F.RATE_LIMIT),
        ("error", F.BAD_RESPONSE),
        ("abort", F.BAD_RESPONSE),
    ],
)
def test_a_finish_reason_that_means_no_capacity_is_load(reason: str, cls: FailureClass) -> None:
    call = Call("gw", "m", {"messages": []})
    bodies = {
        "openai": choice(finish_reason=reason),
        "anthropic": {
            "id": "m",
            "type": "message",
            "content": [{"type": "text", "text": "Half"}],
            "stop_reason": reason,
        },
        "gemini": {"candidates": [{"content": {"parts": [{"text": "Half"}]}, "finishReason": reason}]},
    }
    for protocol, body in bodies.items():
        with pytest.raises(BadAnswer) as caught:
            adapter_for(protocol).answer(call, 200, {}, json.dumps(body).encode())
        assert caught.value.cls is cls, protocol


def test_a_routers_native_reason_is_read_too() -> None:
    body = choice(finish_reason="error", native_finish_reason="engine_overloaded")
    with pytest.raises(BadAnswer) as caught:
        adapter_for("openai").answer(Call("openrouter", "m", {}), 200, {}, json.dumps(body).encode())
    assert caught.value.cls is F.OVERLOADED


SLIPS = [
    (400, error("Could not do it.", "invalid_request_error", "json_validate_failed", failed_generation="{")),
    (400, error("Could not do it.", "invalid_request_error", "output_parse_failed")),
    (400, error("Please adjust your prompt.", "invalid_request_error", failed_generation="<tool>")),
    (400, error("Failed to generate JSON. Please adjust your prompt.", "invalid_request_error")),
    (422, error("Tool call validation failed: parameters for tool x did not match schema")),
    (400, error("Tool choice is none, but model called a tool")),
    (400, error("The model produced invalid JSON.", "invalid_request_error")),
    (400, error("The model's output could not be parsed as a tool call.")),
    (500, error("error parsing tool call: raw='{\"a\": ', err=unexpected end of JSON input", "api_error")),
    (424, {"error": {"message": "The model returned malformed output."}}),
    (400, wrapped(400, error("x", "invalid_request_error", "tool_use_failed", failed_generation="…"))),
]


@pytest.mark.parametrize(("status", "body"), SLIPS)
def test_what_the_model_wrote_wrong_is_not_the_callers_fault(status: int, body: Any) -> None:
    failure = classify("gw", "openai", status, {}, json.dumps(body), NOW)
    assert failure.cls is F.BAD_RESPONSE
    assert failure.possibly_billed


@pytest.mark.parametrize(
    "sentence",
    [
        "We could not parse the JSON body of your request.",
        "Invalid schema for response_format 'x'.",
        "messages[2].tool_calls[0].function.arguments is not valid JSON",
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        "Invalid type for 'tools[0].function.parameters'",
    ],
)
def test_what_the_caller_wrote_wrong_stays_so(sentence: str) -> None:
    failure = classify("gw", "openai", 400, {}, json.dumps(error(sentence, "invalid_request_error")), NOW)
    assert failure.cls is F.BAD_REQUEST
