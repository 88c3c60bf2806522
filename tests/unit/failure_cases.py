"""What the classifier's tests share: a case, and the envelopes in which providers send their errors."""

import json
from typing import Any, NamedTuple

import pytest

from understudy.models.failure import Failure, FailureClass, Scope
from understudy.worker.failures import classify

NOW = 1_790_000_000.0
PLENTY = {"x-ratelimit-remaining-requests": "99", "x-ratelimit-remaining-tokens": "9000", "x-request-id": "r"}


class Case(NamedTuple):
    name: str
    provider: str
    protocol: str
    status: int
    headers: dict[str, str]
    body: Any
    cls: FailureClass
    hint_s: float | None = None
    scope: Scope | None = None


def error(message: str, kind: str | None = None, code: object = None, **more: Any) -> dict[str, Any]:
    """OpenAI's envelope, which most providers copy."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def claude(kind: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    return {"error": body | ({"details": list(details)} if details else {})}


def info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def quota(*ids: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": each} for each in ids]}


def delay(text: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": text}


def aws(name: str) -> dict[str, str]:
    return {"X-Amzn-ErrorType": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}


def page(title: str) -> str:
    return f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"


def at(
    provider: str,
    name: str,
    status: int,
    body: object,
    cls: FailureClass,
    hint_s: float | None = None,
    scope: Scope | None = None,
    retry_after: str | None = None,
) -> Case:
    """A case of the OpenAI protocol."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    return Case(name, provider, "openai", status, headers, body, cls, hint_s, scope)


def wrapped(status: int, raw: object, **more: object) -> dict[str, object]:
    """OpenRouter's error around the error of the provider behind it."""
    metadata = {"raw": raw if isinstance(raw, str) else json.dumps(raw), "provider_name": "P"}
    return {"error": {"message": "Provider returned error", "code": status, "metadata": metadata | more}}


def classified(case: Case) -> Failure:
    body = case.body if isinstance(case.body, str) else json.dumps(case.body)
    return classify(case.provider, case.protocol, case.status, case.headers, body.encode(), NOW)


def check(case: Case) -> None:
    failure = classified(case)
    assert failure.cls is case.cls, failure.message
    assert failure.hint_s == (None if case.hint_s is None else pytest.approx(case.hint_s))
    assert case.scope in (None, failure.scope)
