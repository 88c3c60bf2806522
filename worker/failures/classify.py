"""From an HTTP response to a failure: read it, find the evidence that fits, add what is known beside the class."""

from collections.abc import Mapping

from models.failure import PASSING, Failure, FailureClass, Scope
from worker.failures.complaint import Complaint, blocked_by_gemini, read_complaint
from worker.failures.evidence import Signs
from worker.failures.hints import MAX_HINT_S, read_hint
from worker.failures.tables import EVIDENCE, RATE_LIMIT_SCOPE, SCOPE

WITHHELD = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"}
    | {"IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"}
)
"""Gemini's reasons for showing no answer that mean the content and not an accident."""

GOOGLE_DAY_STARTS_S = 8 * 3600
"""Google's daily quotas return at midnight in Los Angeles: 08:00 UTC, in summer an hour earlier. Late by an hour is
harmless; a table of time zones, which small containers lack, is not needed."""

DAY_S = 86_400
PER_DAY = ("per day", "per-day", "(rpd)", "(tpd)", "daily")


def classify(
    provider: str, protocol: str, status: int, headers: Mapping[str, str], body: bytes | str, now: float
) -> Failure:
    """What a response that is no answer means. Never raises, whatever the body holds.

    `provider` is the preset's name or one that the user gave; `status` may be 2xx when the body carries an error.
    `now` in unix seconds, for hints that name a moment.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    complaint = read_complaint(headers, body)
    hint_s = read_hint(headers, complaint, now)
    signs = Signs(
        provider,
        protocol,
        _telling_status(status, complaint),
        frozenset(word.lower() for word in complaint.words),
        complaint.text.lower(),
        complaint.is_page,
        hint_s is not None,
    )
    evidence = next((each for each in EVIDENCE if each.fits(signs)), None)
    cls = evidence.cls if evidence else FailureClass.UNKNOWN
    if 200 <= status < 300:
        cls = _class_of_success(complaint)
    per_day = cls is FailureClass.RATE_LIMIT and _is_per_day(signs, complaint)
    if per_day and complaint.quota_ids:
        hint_s = _until_googles_next_day(now)
    return Failure(
        cls,
        complaint.message(status),
        status=status,
        code=complaint.code,
        hint_s=hint_s if cls in PASSING else None,
        per_day=per_day,
        scope=_scope(cls, signs, complaint),
        possibly_billed=cls in (FailureClass.TIMEOUT, FailureClass.SERVER) or 200 <= status < 300,
        body=complaint.body,
        sure=evidence is not None and evidence.sure,
    )


def _class_of_success(complaint: Complaint) -> FailureClass:
    """A 2xx is only no answer or a blocked one: an error inside may be as passing as a broken stream."""
    blocked = blocked_by_gemini(complaint)
    return FailureClass.CONTENT_FILTER if blocked in WITHHELD else FailureClass.BAD_RESPONSE


def _telling_status(status: int, complaint: Complaint) -> int:
    """Gateways answer 500 or 502 and leave the status that they got in the body."""
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
    return SCOPE.get(cls, Scope.REQUEST)


def _is_per_day(signs: Signs, complaint: Complaint) -> bool:
    """A quota id wins over the delay of seconds that comes with it: the limit is whole again on the next day."""
    if complaint.quota_ids:
        return any("PerDay" in quota for quota in complaint.quota_ids)
    return any(phrase in signs.text for phrase in PER_DAY)


def _until_googles_next_day(now: float) -> float:
    return min(DAY_S - (now - GOOGLE_DAY_STARTS_S) % DAY_S, MAX_HINT_S)
