"""From an HTTP response to a failure: parse it, find the matching evidence, add what else is known. Also from a 2xx
that reports one."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from understudy.models.failure import Failure, FailureClass, Scope, classes_where
from understudy.worker.failures.about_accounts import CREDENTIAL, MODEL_MISSING, NOTHING_HERE, QUOTA, REGION
from understudy.worker.failures.about_load import CODES_OF_SERVERS, OVERLOADED, RATE_LIMIT, RATE_LIMIT_SCOPE, STATUSES
from understudy.worker.failures.about_requests import (
    CONTENT_FILTER,
    CONTEXT_LENGTH,
    MODEL_SLIP,
    PAGES,
    REFUSE_RATES,
    TOO_LARGE,
    what_never_starts,
)
from understudy.worker.failures.complaint import MAX_READ_BYTES, Complaint, parsed, read_complaint
from understudy.worker.failures.echoes import CUT, Echoes, Sent
from understudy.worker.failures.evidence import Evidence, Signs
from understudy.worker.failures.retry_after import MAX_HINT_S, read_hint

EVIDENCE = (
    *PAGES,
    *MODEL_SLIP,
    *REGION,
    *CONTEXT_LENGTH,
    *TOO_LARGE,
    *CODES_OF_SERVERS,
    *CONTENT_FILTER,
    *QUOTA,
    *MODEL_MISSING,
    *CREDENTIAL,
    *NOTHING_HERE,
    *OVERLOADED,
    *RATE_LIMIT,
    *STATUSES,
)
"""In order of precedence: the first matching row wins.

Rows that resemble another class precede it: Google says "quota" for a rate, an oversized request is rejected as a rate
limit, and an empty balance arrives with almost any status. Sources: the providers' published error lists and recorded
answers. A row without a provider applies to all, because gateways and compatible servers repeat each other's messages.
"""

REFUSALS_OF_REQUESTS = frozenset({400, 404, 405, 409, 410, 415, 422})
INVALID_REQUEST = frozenset(
    {"invalid_request_error", "invalid_argument", "invalid_request", "badrequesterror", "bad_request_error"}
    | {"validationexception", "validation_error", "invalid_parameter", "unknown_parameter", "unsupported_parameter"}
)
"""How providers say that a request is invalid."""

QUOTED = re.compile(r"""(?<!\w)(?:'[^'\n]+'|"[^"\n]+"|`[^`\n]+`|‘[^’\n]+’|“[^”\n]+”)(?!\w)|https?://\S+""")
"""What a provider quotes when it calls a request invalid is the caller's, even if it was modified on the way."""

GOOGLE_DAY_STARTS_S = 8 * 3600
"""Google's daily quotas reset at midnight in Los Angeles: 08:00 UTC, in summer an hour earlier. Being an hour late
is harmless and saves a time zone database, which small containers lack."""

DAY_S = 86_400
PER_DAY = ("per day", "per-day", "(rpd)", "(tpd)", "daily")

INNER_STATUSES = frozenset({408, 429, 498, 499, *range(500, 600)})
UNSAID = 503
"""For an error without a number: its message may mean an overload."""

BELIEVED = classes_where(lambda traits: traits.transient) | {FailureClass.QUOTA}
NUMBER_FIELDS = ("code", "status", "status_code", "statusCode", "http_status")
NOT_BILLED = classes_where(lambda traits: traits.load) | {FailureClass.QUOTA}


def classify(
    provider: str,
    protocol: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    now: float,
    sent: Sent | None = None,
) -> Failure:
    """Classify a response without an answer. Never raises, whatever the body contains.

    `provider` is the preset's name or one chosen by the user; `status` is not 2xx. `now` in unix seconds, for hints
    given as a time. What the provider repeats of the request that was `sent` is not evidence.
    """
    return _judge(provider, protocol, status, headers, body, now, sent)[0]


def _judge(
    provider: str,
    protocol: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    now: float,
    sent: Sent | None = None,
) -> tuple[Failure, Evidence | None]:
    """The same, with the row of evidence that decided; None: no row did."""
    headers = {name.lower(): value for name, value in headers.items()}
    complaint = read_complaint(headers, body)
    echoes = Echoes(sent)
    signs = _signs(provider, protocol, _telling_status(status, complaint), complaint, echoes)
    hint_s = read_hint(signs.status, headers, complaint, echoes, now)
    signs = replace(signs, waits=hint_s is not None)
    evidence = next((each for each in EVIDENCE if each.fits(signs)), None)
    never = what_never_starts(signs.own_text) if signs.status in REFUSE_RATES else None
    cls = never or (evidence.cls if evidence else FailureClass.UNKNOWN)
    per_day = cls is FailureClass.RATE_LIMIT and _is_per_day(signs, complaint)
    if per_day and complaint.quota_ids:
        hint_s = _until_googles_next_day(now)
    message = complaint.message(status)
    failure = Failure(
        cls,
        message,
        status=status,
        code=complaint.code,
        hint_s=hint_s if cls.traits.transient else None,
        per_day=per_day,
        scope=_scope(cls, signs, complaint),
        possibly_billed=_is_possibly_billed(cls, complaint),
        body=complaint.body,
        sure=never is not None or (evidence is not None and evidence.sure),
        for_others=_for_others(echoes.cut(message), status) if cls.traits.about_credential else "",
    )
    return failure, evidence


def _for_others(message: str, status: int) -> str:
    return message if any(map(str.isalnum, message)) else f"HTTP {status}; what was said repeats a request"


def _is_possibly_billed(cls: FailureClass, complaint: Complaint) -> bool:
    """A model that wrote something wrong has written something; a page comes from a proxy."""
    written = cls is FailureClass.BAD_RESPONSE and not complaint.is_page
    return written or cls in (FailureClass.TIMEOUT, FailureClass.SERVER)


def _signs(provider: str, protocol: str, status: int, complaint: Complaint, echoes: Echoes) -> Signs:
    words, text = frozenset(word.lower() for word in complaint.words), complaint.text.lower()
    echoed = frozenset(word.lower() for word in complaint.words_in_text if echoes.has(word))
    about_request = status in REFUSALS_OF_REQUESTS and (
        complaint.names_a_parameter or not INVALID_REQUEST.isdisjoint(words)
    )
    own_text = echoes.cut(text)
    return Signs(
        *(provider, protocol, status, words, text),
        own_words=words - echoed,
        own_text=QUOTED.sub(CUT, own_text) if about_request else own_text,
        about_request=about_request,
        is_page=complaint.is_page,
    )


def _telling_status(status: int, complaint: Complaint) -> int:
    """Gateways respond 500 or 502 and leave the original status in the body."""
    if status in (500, 502):
        inner = (int(word) for word in complaint.words if word.isascii() and word.isdigit() and len(word) == 3)
        return next((code for code in inner if 400 <= code < 600), status)
    return status


def _scope(cls: FailureClass, signs: Signs, complaint: Complaint) -> Scope:
    if cls is FailureClass.RATE_LIMIT:
        if complaint.quota_ids:
            return Scope.MODEL if all("PerModel" in quota for quota in complaint.quota_ids) else Scope.ACCOUNT
        for scope, evidence in RATE_LIMIT_SCOPE:
            if evidence.fits(signs):
                return scope
    return cls.traits.scope


def _is_per_day(signs: Signs, complaint: Complaint) -> bool:
    """A quota id overrides the delay of seconds that comes with it: the limit resets only on the next day."""
    if complaint.quota_ids:
        return any("PerDay" in quota for quota in complaint.quota_ids)
    return any(phrase in signs.own_text for phrase in PER_DAY)


def _until_googles_next_day(now: float) -> float:
    return min(DAY_S - (now - GOOGLE_DAY_STARTS_S) % DAY_S, MAX_HINT_S)


def classify_success(
    provider: str, protocol: str, headers: Mapping[str, str], body: bytes, now: float, sent: Sent | None = None
) -> Failure | None:
    """The overload or outage that an error inside a 2xx reports: in place of the answer, in a choice, or in an event of
    an unrequested stream. It is classified like the status that the provider should have sent.

    None: it reports none, or the answer itself caused it.
    """
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
        failure, evidence = _judge(provider, protocol, inner or UNSAID, headers, told, now, sent)
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
