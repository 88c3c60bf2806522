"""The failure classes, and the value that describes one failure.

All knowledge of provider errors is in `worker.failures`; other code sees only what is defined here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class FailureClass(StrEnum):
    CONNECT = "connect"  # nothing was sent: DNS, refused, TLS, connect timeout
    TIMEOUT = "timeout"  # sent, no response: the provider may bill it
    SERVER = "server"  # 500, 502, 504
    OVERLOADED = "overloaded"  # the provider has no capacity for anyone
    RATE_LIMIT = "rate_limit"  # this account sends too much
    QUOTA = "quota"  # no money, or a spend limit was reached
    CREDENTIAL = "credential"  # the key is wrong, revoked or expired
    MODEL_MISSING = "model_missing"  # this credential has no such model
    REGION = "region"  # not served in our region, or data rules allow no step
    CONTEXT_LENGTH = "context_length"  # the prompt does not fit the model's window
    TOO_LARGE = "too_large"  # larger than the provider or its limit can ever accept
    CONTENT_FILTER = "content_filter"  # the provider rejects this content
    BAD_REQUEST = "bad_request"  # the request is invalid for every provider
    BAD_RESPONSE = "bad_response"  # an unusable answer, or an error about the model's own output
    CANCELLED = "cancelled"  # the owner cancelled while the call was in flight
    CRASHED = "crashed"  # the job took down its worker several times
    UNKNOWN = "unknown"  # not yet in the tables

    @property
    def traits(self) -> "FailureTraits":
        return TRAITS[self]


class Scope(StrEnum):
    """What a failure is about, and therefore what is cooled or disabled."""

    REQUEST = "request"  # this request only
    MODEL = "model"  # this account with this model
    ACCOUNT = "account"  # everything on this account
    PROVIDER = "provider"  # this model for everyone: an overload or an outage


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureTraits:
    """The consequences of a failure class. Details of a single call are in its `Failure`."""

    transient: bool = False
    """Time heals it: a job whose every step failed this way waits for a new round."""
    load: bool = False
    """The provider rejected the call unprocessed because there are too many: it gets fewer for a while."""
    trips_breaker: bool = False
    """Several in a row mean that the deployment is down, and it gets no calls for a while."""
    blocks: bool = False
    """A person must fix it: the credential is disabled, and its jobs stay queued."""
    about_credential: bool = False
    """It concerns the credential, which is disabled (for one model or for all) once there is enough evidence; the
    provider's message is kept for other jobs without what it repeats of the request."""
    probed: bool = False
    """It may end without notice, so a disabled credential is probed from time to time: money comes in, and a
    restarting gateway answers 404 for a while."""
    about_request: bool = False
    """The provider has read the request: it is neither down nor rejecting calls."""
    retries: int = 0
    """How often the same step is retried, within the round's budget."""
    falls_back: bool = True
    """Unless its chain says otherwise, the job moves on to the next step; False: it ends."""
    rerun: bool = True
    """`understudy retry` reruns it; False: the request would be rejected again, or would kill workers again."""
    rerun_elsewhere: bool = True
    """`understudy retry` with another chain reruns it: what one model rejects another may accept."""
    scope: Scope = Scope.REQUEST
    """What it is about, unless the provider's message is more specific."""

    @property
    def asks_another_credential(self) -> bool:
        """Free for the job: another credential of the step may be tried; the limiter chooses it."""
        return self.load or self.about_credential


_DOWN = FailureTraits(transient=True, trips_breaker=True, retries=2)
_OF_THE_REQUEST = FailureTraits(about_request=True)
_REFUSED_BY_ALL = FailureTraits(about_request=True, falls_back=False, rerun=False)

TRAITS: Mapping[FailureClass, FailureTraits] = {
    FailureClass.CONNECT: _DOWN,
    FailureClass.TIMEOUT: replace(_DOWN, retries=1),
    FailureClass.SERVER: _DOWN,
    FailureClass.OVERLOADED: FailureTraits(transient=True, load=True, scope=Scope.MODEL),
    FailureClass.RATE_LIMIT: FailureTraits(transient=True, load=True, scope=Scope.MODEL),
    FailureClass.QUOTA: FailureTraits(blocks=True, about_credential=True, probed=True, scope=Scope.ACCOUNT),
    FailureClass.CREDENTIAL: FailureTraits(blocks=True, about_credential=True, scope=Scope.ACCOUNT),
    FailureClass.MODEL_MISSING: FailureTraits(about_credential=True, probed=True, scope=Scope.MODEL),
    FailureClass.REGION: FailureTraits(scope=Scope.ACCOUNT),
    FailureClass.CONTEXT_LENGTH: _OF_THE_REQUEST,
    FailureClass.TOO_LARGE: _OF_THE_REQUEST,
    FailureClass.CONTENT_FILTER: _REFUSED_BY_ALL,
    FailureClass.BAD_REQUEST: _REFUSED_BY_ALL,
    FailureClass.BAD_RESPONSE: FailureTraits(retries=1),
    FailureClass.CANCELLED: FailureTraits(),
    FailureClass.CRASHED: FailureTraits(rerun=False, rerun_elsewhere=False),
    FailureClass.UNKNOWN: FailureTraits(retries=1),
}
"""Every class has its row. docs/configuration.md shows the table."""


def classes_where(has: Callable[[FailureTraits], bool]) -> frozenset[FailureClass]:
    return frozenset(cls for cls, traits in TRAITS.items() if has(traits))


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed provider call, classified. Contains no prompt and no secret.

    `hint_s` is how many seconds the provider asked us to wait, clamped to a sane range, or None. `per_day` marks a
    daily limit. `body` is the provider's own error body (parsed JSON, or truncated text), kept because the caller's
    error line shows it; it must not be logged. `repeatable` False: the same step would fail in the same way. `sure`:
    stated in words or by an unambiguous status. `for_others` is the message without what it repeats of the request, for
    others affected by the failure.
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
