"""A scripted failure as an HTTP response: the body in the dialect's format and the matching headers."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from understudy.worker.mock.config import DialectName, Fail
from understudy.worker.mock.limits import Standing, Verdict
from understudy.worker.mock.refusals import REFUSALS, Refusal

DEFAULT_WAIT_S = {Fail.RATE_LIMIT: 2.0, Fail.RATE_LIMIT_PER_DAY: 3600.0}

_JSON = "application/json"
_INVALID = "invalid_request_error"
_GOOGLE = "type.googleapis.com/google.rpc."


@dataclass(frozen=True, slots=True)
class Wire:
    """What goes over the wire."""

    status: int
    content: bytes
    headers: dict[str, str]
    content_type: str = _JSON


def _page(status: int, words: str) -> Wire:
    html = f"<html><head><title>{status} {words}</title></head><body><h1>{status} {words}</h1></body></html>"
    return Wire(status, html.encode(), {}, "text/html")


_PROXY = {
    Fail.BAD_GATEWAY: _page(502, "Bad Gateway"),
    Fail.GATEWAY_TIMEOUT: _page(504, "Gateway Time-out"),
    Fail.UNAVAILABLE: Wire(503, b"no healthy upstream", {}, "text/plain"),
    Fail.HTML: _page(200, "Welcome"),
    Fail.EMPTY: Wire(200, b"", {}),
    Fail.MALFORMED: Wire(200, b"{'choices': [None]}", {}),
}


def failure(dialect: DialectName, fail: Fail, model: str, wait_s: float | None, request_id: str) -> Wire:
    """Every failure that is a complete response. `wait_s` None: the failure's usual hint, if any."""
    if fail in _PROXY:
        page = _PROXY[fail]
        return Wire(page.status, page.content, _hint_headers(dialect, wait_s), page.content_type)
    if fail is Fail.ERROR_IN_200:
        inner = failure(dialect, Fail.SERVER, model, None, request_id)
        return Wire(200, inner.content, inner.headers)
    if fail is not Fail.RATE_LIMIT_NO_HINT and wait_s is None:
        wait_s = DEFAULT_WAIT_S.get(fail)
    refusal = REFUSALS[dialect][fail]
    words = f"{math.ceil(wait_s or 0)} seconds" if dialect == "azure" else duration(wait_s or 0.0)
    message = refusal.message.replace("{model}", model).replace("{wait}", words)
    body = _envelope(dialect, fail, refusal, message, wait_s, request_id)
    headers = {} if fail is Fail.RATE_LIMIT_NO_HINT else _hint_headers(dialect, wait_s)
    if dialect == "bedrock" and refusal.kind:
        headers["x-amzn-errortype"] = refusal.kind
    return Wire(refusal.status, orjson.dumps(body), headers)


def _envelope(
    dialect: DialectName, fail: Fail, refusal: Refusal, message: str, wait_s: float | None, request_id: str
) -> dict[str, Any]:
    match dialect:
        case "anthropic":
            error = {"type": refusal.kind, "message": message}
            return {"type": "error", "error": error, "request_id": f"req_{request_id}"}
        case "gemini":
            return _gemini_envelope(fail, refusal, message, wait_s)
        case "bedrock":
            return {"message": message}
        case "mistral":
            kind = refusal.kind or _INVALID
            return {"object": "error", "message": message, "type": kind, "param": None, "code": refusal.code}
        case "xai":
            return {"code": refusal.code or refusal.kind or "Unknown", "error": message}
        case "openrouter":
            about: dict[str, Any] = {"provider_name": "Mock"}
            if fail is Fail.CONTENT_FILTER:
                about["reasons"] = ["violence"]
            return {"error": {"message": message, "code": refusal.status, "metadata": about}}
        case "azure" if refusal.kind is None:
            return {"error": {"code": refusal.code, "message": message}}
        case _:
            return {"error": {"message": message, "type": refusal.kind, "param": None, "code": refusal.code}}


def _gemini_envelope(fail: Fail, refusal: Refusal, message: str, wait_s: float | None) -> dict[str, Any]:
    if fail is Fail.CONTENT_FILTER:
        return {"promptFeedback": {"blockReason": refusal.code}}
    details: list[dict[str, Any]] = []
    if refusal.code:
        details.append({"@type": _GOOGLE + "ErrorInfo", "reason": refusal.code, "domain": "googleapis.com"})
    if fail in DEFAULT_WAIT_S:
        period = "Day" if fail is Fail.RATE_LIMIT_PER_DAY else "Minute"
        quota = {"quotaId": f"GenerateRequestsPer{period}PerProjectPerModel", "quotaValue": "10"}
        details.append({"@type": _GOOGLE + "QuotaFailure", "violations": [quota]})
    if wait_s is not None:
        # A daily quota comes with a delay of seconds; a client that believes it retries all day without success.
        delay_s = min(wait_s, 20.0) if fail is Fail.RATE_LIMIT_PER_DAY else wait_s
        details.append({"@type": _GOOGLE + "RetryInfo", "retryDelay": f"{delay_s:.9g}s"})
    error: dict[str, Any] = {"code": refusal.status, "message": message, "status": refusal.kind}
    if details:
        error["details"] = details
    return {"error": error}


def duration(seconds: float) -> str:
    """Seconds in OpenAI's format: 12ms, 1.5s, 6m0s, 1h0m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    if not minutes:
        return f"{rest:.6g}s"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{rest:.6g}s" if hours else f"{minutes}m{rest:.6g}s"


def _hint_headers(dialect: DialectName, wait_s: float | None) -> dict[str, str]:
    """Mistral, Gemini and Bedrock have none, whatever the rule says."""
    if wait_s is None or dialect in ("mistral", "gemini", "bedrock"):
        return {}
    headers = {"retry-after": str(math.ceil(wait_s))}
    if dialect == "openai":
        headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
    if dialect == "azure":
        headers["x-ms-retry-after-ms"] = str(math.ceil(wait_s * 1000))
    return headers


def limit_headers(dialect: DialectName, verdict: Verdict, wall: float) -> dict[str, str]:
    """The state of the enforced limits, in the dialect's headers; `wall` is the unix time."""
    headers: dict[str, str] = {}
    for unit, standing in (("requests", verdict.requests), ("tokens", verdict.tokens)):
        if standing is not None:
            headers.update(_standing_headers(dialect, unit, standing, wall))
    return headers


def _standing_headers(dialect: DialectName, unit: str, standing: Standing, wall: float) -> dict[str, str]:
    limit, remaining = str(int(standing.limit)), str(int(standing.remaining))
    match dialect:
        case "gemini" | "bedrock":
            return {}
        case "anthropic":
            reset = datetime.fromtimestamp(math.ceil(wall + standing.reset_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            start = f"anthropic-ratelimit-{unit}-"
            return {f"{start}limit": limit, f"{start}remaining": remaining, f"{start}reset": reset}
        case "mistral":
            short = {"requests": "req", "tokens": "tokens"}[unit]
            return {f"x-ratelimit-limit-{short}-minute": limit, f"x-ratelimit-remaining-{short}-minute": remaining}
        case "openrouter":
            reset = str(int((wall + standing.reset_s) * 1000))
            return {"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}
        case _:
            reset = str(math.ceil(standing.reset_s)) if dialect == "azure" else duration(standing.reset_s)
            return {
                f"x-ratelimit-limit-{unit}": limit,
                f"x-ratelimit-remaining-{unit}": remaining,
                f"x-ratelimit-reset-{unit}": reset,
            }
