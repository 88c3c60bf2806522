"""The failure classes, and the value that describes one failure.

All knowledge of provider errors is in `worker.failures`; everybody else sees only what is here.
"""

from dataclasses import dataclass
from enum import StrEnum


class FailureClass(StrEnum):
    CONNECT = "connect"  # nothing was sent: DNS, refused, TLS, connect timeout
    TIMEOUT = "timeout"  # sent, no answer: the provider may bill it
    SERVER = "server"  # 500, 502, 504
    OVERLOADED = "overloaded"  # the provider has no capacity for anybody
    RATE_LIMIT = "rate_limit"  # this account is too fast
    QUOTA = "quota"  # no money, or a spend limit was reached
    CREDENTIAL = "credential"  # the key is wrong, revoked or expired
    MODEL_MISSING = "model_missing"  # this credential has no such model
    REGION = "region"  # not served where we are, or data rules allow no step
    CONTEXT_LENGTH = "context_length"  # the prompt does not fit the model's window
    TOO_LARGE = "too_large"  # the request is larger than the provider or the limit ever takes
    CONTENT_FILTER = "content_filter"  # the provider refuses this content
    BAD_REQUEST = "bad_request"  # the request is wrong for everybody
    BAD_RESPONSE = "bad_response"  # an answer that is none, or a refusal of what the model itself wrote
    CANCELLED = "cancelled"  # the owner cancelled while the call was in flight
    CRASHED = "crashed"  # the job took its worker down, several times
    UNKNOWN = "unknown"  # not in the tables yet


PASSING = frozenset(
    {
        FailureClass.CONNECT,
        FailureClass.TIMEOUT,
        FailureClass.SERVER,
        FailureClass.OVERLOADED,
        FailureClass.RATE_LIMIT,
    }
)
"""Reasons that time heals: a job whose every step was refused so waits for a new round."""

BLOCKING = frozenset({FailureClass.QUOTA, FailureClass.CREDENTIAL})
"""Reasons that a person must mend: the credential is set aside, its jobs stay queued."""


OF_THE_REQUEST = frozenset(
    {
        FailureClass.BAD_REQUEST,
        FailureClass.CONTENT_FILTER,
        FailureClass.CONTEXT_LENGTH,
        FailureClass.TOO_LARGE,
    }
)
"""A provider that says so has read the request: it is neither down nor refusing calls."""


class Scope(StrEnum):
    """What a failure says something about, and therefore what is cooled or disabled."""

    REQUEST = "request"  # this request only
    MODEL = "model"  # this account with this model
    ACCOUNT = "account"  # everything on this account
    PROVIDER = "provider"  # this model for everybody: an overload or an outage


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed provider call, classified. Holds no prompt and no secret.

    `hint_s` is how many seconds the provider asked us to wait, clamped to a sane range, or None.
    `per_day` marks a daily limit. `body` is the provider's own error body (parsed JSON, or a cut text),
    kept because the caller's error line shows it; it must not be logged. `repeatable` False: the same step would fail
    in the same way. `sure`: said in words or by a status that can mean nothing else.
    `for_others` is the message without what it repeats of the request, for those whom it concerns as well.
    """

    cls: FailureClass
    message: str
    status: int | None = None
    code: str | None = None
    hint_s: float | None = None
    per_day: bool = False
    scope: Scope = Scope.REQUEST
    possibly_billed: bool = False
    body: object = None
    repeatable: bool = True
    sure: bool = False
    for_others: str = ""
