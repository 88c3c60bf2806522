"""Overloads and outages reported inside a 2xx: an error object in place of the answer, in a choice, or in an event
of an unrequested stream. They are classified like the status that the provider should have sent."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from understudy.models.failure import Failure, FailureClass, classes_where
from understudy.worker.failures.classify import judge
from understudy.worker.failures.complaint import MAX_READ_BYTES, parsed
from understudy.worker.failures.echoes import Sent

INNER_STATUSES = frozenset({408, 429, 498, 499, *range(500, 600)})
UNSAID = 503
"""For an error without a number: its message may mean an overload."""

BELIEVED = classes_where(lambda traits: traits.transient) | {FailureClass.QUOTA}
NUMBER_FIELDS = ("code", "status", "status_code", "statusCode", "http_status")
NOT_BILLED = classes_where(lambda traits: traits.load) | {FailureClass.QUOTA}


def classify_success(
    provider: str, protocol: str, headers: Mapping[str, str], body: bytes, now: float, sent: Sent | None = None
) -> Failure | None:
    """The failure reported by an error inside a 2xx, unless the answer itself caused it; None: it reports no
    overload."""
    begins = body[:MAX_READ_BYTES]
    if begins and all(not line or line.startswith(b":") for line in map(bytes.strip, begins.splitlines())):
        message = "nothing came but blanks, which keep a connection open while a provider has no capacity"
        return Failure(FailureClass.OVERLOADED, message, status=200)
    for error in _errors(begins):
        inner = _number(error)
        if inner is not None and inner not in INNER_STATUSES:
            return None
        try:
            told = orjson.dumps({"error": error})
        except TypeError:  # nested too deeply to be serialized again, or to be a sentence
            return None
        failure, evidence = judge(provider, protocol, inner or UNSAID, headers, told, now, sent)
        in_words = evidence is not None and evidence.is_in_words
        if failure.cls not in BELIEVED or not (inner or in_words):
            return None
        message = f"answered 200 with an error: {failure.message}"
        return replace(failure, message=message, status=200, possibly_billed=failure.cls not in NOT_BILLED)
    return None


def _errors(body: bytes) -> Iterator[Any]:
    """The errors that the body is, or that its choices or events contain, each as an object or a sentence."""
    document = parsed(body)
    events = [document]
    if document is None:
        lines = (line.strip() for line in body.splitlines())
        events = [parsed(line.removeprefix(b"data:")) for line in lines if line.startswith(b"data:")]
    if isinstance(document, list):
        events = document[:1]
    for event in events:
        if isinstance(event, dict):
            yield from _errors_of(event)


def _errors_of(document: dict[str, Any]) -> Iterator[Any]:
    if document.get("error"):
        error = document["error"]
        outer = {name: document[name] for name in NUMBER_FIELDS if name in document}
        yield {**outer, **error} if isinstance(error, dict) else {**outer, "message": error}
    elif document.get("object") == "error" or document.get("type") == "error":
        yield document
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("error"):
            yield choice["error"] if isinstance(choice["error"], dict) else {"message": choice["error"]}


def _number(error: dict[str, Any]) -> int | None:
    """The status that it should have had."""
    numbers = (str(error[name]) for name in NUMBER_FIELDS if isinstance(error.get(name), str | int))
    return next((int(each) for each in numbers if len(each) == 3 and each.isascii() and each.isdigit()), None)
