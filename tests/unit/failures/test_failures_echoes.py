"""What a caller writes and a provider repeats counts against nothing: no key, no balance, no region, no rate."""

import json
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest
from failure_cases import NOW, claude, error, google

from understudy.models.failure import Failure, FailureClass, Scope
from understudy.worker.failures import classify
from understudy.worker.failures.echoes import CUT, MAX_CHARS, Echoes

F = FailureClass


class Sent(NamedTuple):
    path: str
    content: bytes


def sent(body: Any, path: str = "/v1/chat/completions") -> Sent:
    return Sent(path, json.dumps(body).encode())


def asking(**more: Any) -> dict[str, Any]:
    return {"model": "some-model-3", "messages": [{"role": "user", "content": "How tall is the tower?"}], **more}


WORDS = [
    "no api key",
    "api key is invalid",
    "API-Key_Revoked",
    "unauthorized",
    "is not authorized",
    "your account has been suspended",
    "insufficient balance",
    "out of credits",
    "spending-limit",
    "past due",
    "payment required",
    "monthly budget exceeded",
    "unsupported country",
    "not available in your region",
    "too many requests",
    "rate limit reached, try again in 19 hours",
    "Rate-Limit-Exceeded; retry after 80000s",
    "model not found",
    "overloaded",
]

Form = Callable[[str], tuple[int, Any, Any]]
"""Of the caller's words: status, the provider's body, and what was sent to it."""

FORMS: dict[str, Form] = {
    "an unknown parameter": lambda w: (400, error(f"Unknown parameter: '{w}'."), asking(**{w: 1})),
    "an unknown argument": lambda w: (400, error(f"Unrecognized request argument supplied: {w}"), asking(**{w: True})),
    "a field that is not permitted": lambda w: (
        422,
        {"detail": [{"loc": ["body", w], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]},
        asking(**{w: 0}),
    ),
    "a value that is none of a list": lambda w: (
        400,
        error(f"{w} is not one of low, medium and high - 'reasoning_effort'"),
        asking(reasoning_effort=w),
    ),
    "an image that cannot be fetched": lambda w: (
        400,
        error(f"Timeout while downloading https://pics.example/{w}/cat.png."),
        asking(messages=[{"role": "user", "content": [{"image_url": {"url": f"https://pics.example/{w}/cat.png"}}]}]),
    ),
    "a tool of that name": lambda w: (
        400,
        error(f"Tool names must match a pattern, but tool {w} does not"),
        asking(tools=[{"type": "function", "function": {"name": w}}]),
    ),
    "a field of a nested object": lambda w: (
        400,
        claude("invalid_request_error", f"metadata.{w}.0: Input should be a valid string"),
        asking(metadata={w: []}),
    ),
    "a name that Google does not know": lambda w: (
        400,
        google(400, "INVALID_ARGUMENT", f'Invalid JSON payload received. Unknown name "{w}": Cannot find field.'),
        asking(**{w: 1}),
    ),
    "a prompt in a sentence of its own": lambda w: (
        400,
        error(f"We cannot process the following: {w}, which your prompt ends with"),
        asking(messages=[{"role": "user", "content": f"Please translate this: {w}, thank you."}]),
    ),
    "the end of a long prompt, cut off": lambda w: (
        400,
        {"error": f"cannot parse: …and then they said {w} and left the building…"},
        asking(prompt="filler and more filler " * 9_000 + f"and then they said {w} and left the building for good"),
    ),
    "the request around it, escaped": lambda w: (
        400,
        {"message": json.dumps(json.dumps({"user": w}))},
        asking(user=w),
    ),
    "an error that the caller wrote": lambda w: (
        400,
        {"error": {"message": json.dumps({"code": w.replace(" ", "_"), "message": w})}},
        asking(stop=json.dumps({"code": w.replace(" ", "_"), "message": w})),
    ),
    "another case and other joints": lambda w: (
        400,
        error(f"Field {w.upper().replace(' ', '_')} is reserved"),
        asking(**{w: None}),
    ),
}


SPEAKERS = {"openai": "openai", "openrouter": "openai", "anthropic": "anthropic", "gemini": "gemini", "ours": "openai"}


@pytest.mark.parametrize("form", FORMS)
def test_a_callers_words_say_nothing_about_the_account(form: str) -> None:
    for words, (speaker, protocol) in product(WORDS, SPEAKERS.items()):
        status, body, request = FORMS[form](words)
        failure = classify(speaker, protocol, status, {}, json.dumps(body), NOW, sent(request))
        assert failure.cls in (F.BAD_REQUEST, F.UNKNOWN), (words, speaker, failure)
        assert (failure.scope, failure.hint_s, failure.sure) == (Scope.REQUEST, None, False), (words, speaker)


@pytest.mark.parametrize(
    "form", ["Invalid value: '{}'.", "{} is not permitted here", "No file https://a.example/{} found"]
)
@pytest.mark.parametrize(
    "more",
    [
        {"kind": "invalid_request_error"},
        {"code": "bad_param"},
        {"kind": "BadRequestError"},
        {"status": "INVALID_ARGUMENT"},
    ],
)
def test_a_provider_that_calls_a_request_wrong_says_nothing_about_the_account(form: str, more: dict[str, str]) -> None:
    for words, status in product(WORDS, (400, 404, 422)):
        body = error(form.format(words), **more)
        body["error"]["param"] = "x" if more.get("code") else None
        failure = classify("openai", "openai", status, {}, json.dumps(body), NOW)
        assert failure.cls not in {F.QUOTA, F.CREDENTIAL, F.REGION, F.RATE_LIMIT, F.OVERLOADED}, (words, status)
        assert (failure.scope is Scope.MODEL) == (failure.cls is F.MODEL_MISSING), (words, status)
        assert failure.hint_s is None, (words, status)


REAL: list[tuple[str, str, int, Any, FailureClass]] = [
    ("anthropic", "anthropic", 400, claude("invalid_request_error", "Your credit balance is too low."), F.QUOTA),
    (
        "gemini",
        "gemini",
        400,
        google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid one."),
        F.CREDENTIAL,
    ),
    ("xai", "openai", 400, {"code": "invalid argument", "error": "Incorrect API key provided: ab***yz."}, F.CREDENTIAL),
    ("openai", "openai", 401, error("Incorrect API key provided.", "invalid_request_error"), F.CREDENTIAL),
    ("openai", "openai", 429, error("Rate limit reached. Please try again in 3s."), F.RATE_LIMIT),
    ("minimax", "anthropic", 500, claude("api_error", "insufficient balance (1008)"), F.QUOTA),
    ("fireworks", "openai", 412, error("Account a is suspended, possibly for a failure to pay."), F.QUOTA),
    ("ollama", "openai", 404, {"error": "model 'some-model-3' not found"}, F.MODEL_MISSING),
    ("openai", "openai", 503, error("The engine is currently overloaded."), F.OVERLOADED),
]


@pytest.mark.parametrize(("provider", "protocol", "status", "body", "cls"), REAL)
def test_what_a_provider_says_in_its_own_words_is_believed(
    provider: str, protocol: str, status: int, body: Any, cls: FailureClass
) -> None:
    request = asking(user="u-1", tools=[{"function": {"name": "find_model"}}], stop=["done"])
    failure = classify(provider, protocol, status, {}, json.dumps(body), NOW, sent(request))
    assert failure.cls is cls


def test_a_code_that_the_caller_wrote_into_a_sentence_is_not_the_providers() -> None:
    written = json.dumps({"code": "invalid_api_key"})
    body = json.dumps({"error": {"message": written, "code": "unknown_user"}})
    assert classify("gw", "openai", 400, {}, body, NOW, sent(asking(user=written))).cls is F.BAD_REQUEST
    assert classify("gw", "openai", 400, {}, body, NOW, sent(asking())).cls is F.CREDENTIAL


def test_a_code_in_its_own_field_is_the_providers_whatever_the_prompt_talks_about() -> None:
    body = json.dumps(error("You are out of money.", "insufficient_quota", "insufficient_quota"))
    request = sent(asking(prompt="What does the code insufficient_quota mean?"))
    assert classify("openai", "openai", 429, {}, body, NOW, request).cls is F.QUOTA


def test_the_status_counts_whatever_was_repeated() -> None:
    request = asking(user="Rate limit reached")
    body = json.dumps(error("Rate limit reached for user 'Rate limit reached'"))
    assert classify("openai", "openai", 429, {}, body, NOW, sent(request)).cls is F.RATE_LIMIT


def test_others_who_are_told_why_a_key_is_refused_do_not_read_the_request() -> None:
    body = json.dumps(error("No access for 'Mr Canary' with this key.", None, "invalid_api_key"))
    failure = classify("openai", "openai", 401, {}, body, NOW, sent(asking(user="Mr Canary")))
    assert (failure.message, failure.for_others) == (
        "No access for 'Mr Canary' with this key.",
        f"No access for '{CUT}' with this key.",
    )
    whole = classify(
        "openai", "openai", 401, {}, body, NOW, sent(asking(user="No access for 'Mr Canary' with this key."))
    )
    assert whole.for_others == "HTTP 401; what was said repeats a request"


def test_the_job_itself_is_shown_what_the_provider_said() -> None:
    request = asking(user="past due")
    failure = classify("openai", "openai", 400, {}, json.dumps(error("No user 'past due'.")), NOW, sent(request))
    assert (failure.cls, failure.message) == (F.BAD_REQUEST, "No user 'past due'.")


def _hint(status: int, sentence: str, headers: dict[str, str]) -> Failure:
    return classify("gw", "openai", status, headers, json.dumps({"error": sentence}), NOW)


def test_a_sentence_about_a_request_is_believed_for_an_hour_and_a_header_for_longer() -> None:
    sentence = "Rate limit exceeded. Please try again in 20h."
    assert _hint(400, sentence, {}).hint_s == 3600
    assert _hint(400, sentence, {"retry-after": "72000"}).hint_s == 72_000
    assert _hint(429, sentence, {}).hint_s == 72_000


def test_a_wait_that_the_caller_wrote_is_none_though_the_rest_is_the_providers() -> None:
    request = asking(user="try again in 20h")
    body = json.dumps(error("Rate limit reached for try again in 20h"))
    assert classify("openai", "openai", 429, {}, body, NOW, sent(request)).hint_s is None
    busy = json.dumps(error("Rate limit reached. Please try again in 3s."))
    prompt = asking(prompt="Again. Try again: please. The rate limit was reached, try again in a moment!")
    assert classify("openai", "openai", 429, {}, busy, NOW, sent(prompt)).hint_s == 3


@pytest.mark.parametrize(
    ("text", "request_words", "left"),
    [
        ("unknown name: shoe size 44", {"Shoe Size": 1}, f"unknown name: {CUT} 44"),
        ("the model is not available", {"ABLE": 1, "ode": 2, "model": 3}, "the model is not available"),
        (
            "no such file a%2fb/ring.png here",
            {"url": "https://x.example/ring.png"},
            f"no such file a%2fb/{CUT}.png here",
        ),
        ("“naïve café” is wrong", {"x": "Naïve   café"}, f"“{CUT}” is wrong"),
        ("ab", {"ab": 1}, "ab"),
    ],
)
def test_whole_words_are_cut_and_parts_of_words_are_not(text: str, request_words: Any, left: str) -> None:
    assert Echoes(sent(request_words)).cut(text) == left


def test_a_model_in_the_path_is_a_callers_word() -> None:
    request = Sent("/v1beta/models/api%20key%20expired:generateContent", b"{}")
    assert Echoes(request).cut("no api key expired here") == f"no {CUT} here"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "abc " * 2_000_000},
        {"messages": [{"content": f"{number} " * 200} for number in range(3_000)]},
        {"x" * 50 + str(number): number for number in range(30_000)},
        {"x": "a" * 3_999, "y": ["a" * 3_999] * 500},
    ],
)
def test_of_a_large_request_a_bounded_part_is_looked_at(body: Any) -> None:
    echoes = Echoes(sent(body))
    assert len(echoes._runs) <= MAX_CHARS * 1.1
    assert sum(map(len, echoes._words)) <= MAX_CHARS
    assert len(echoes.cut("a" * 4_000)) <= 4_000


def test_of_a_request_that_is_too_much_to_look_at_only_codes_and_the_status_count() -> None:
    request = sent({"messages": [{"content": f"{number} words of one of many messages"} for number in range(30_000)]})
    said = json.dumps({"error": "Insufficient balance"})
    assert classify("gw", "openai", 400, {}, said, NOW, request).cls is F.BAD_REQUEST
    assert classify("gw", "openai", 402, {}, said, NOW, request).cls is F.QUOTA


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[[[[1]]]]", b"null"])
def test_a_request_that_cannot_be_read_stops_nothing(content: bytes) -> None:
    failure = classify("gw", "openai", 400, {}, json.dumps({"error": "No."}), NOW, Sent("/x", content))
    assert failure.cls is F.BAD_REQUEST
