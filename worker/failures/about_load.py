"""Evidence of rate limits, overloads and faults on the provider's side, and the meaning of a bare status.

Messages about money come first: see `about_accounts`.
"""

import re

from understudy.models.failure import FailureClass, Scope
from understudy.worker.failures.evidence import CLIENT_ERRORS, row

SERVER_ERRORS = frozenset(range(500, 600))
OVERLOADED = (
    row(
        FailureClass.RATE_LIMIT,
        r"service tier capacity exceeded",
        codes="service_tier_capacity_exceeded 3505",
    ),
    row(
        FailureClass.OVERLOADED,
        r"overloaded|(?:server|system) overload",
        r"over capacity|at capacity|no capacity|capacity (?:is )?exceeded|insufficient capacity|out of capacity",
        r"(?:high|heavy|peak|increased) (?:demand|traffic|load|volume)",
        r"(?:server|service|system|engine|model)s? (?:is |are )?(?:currently |too |temporarily )*busy",
        r"queue (?:is |size )?(?:full|exceeded)|(?:maximum )?pending requests exceeded",
        r"no (?:healthy upstream|instances? available|available (?:capacity|workers|servers|instances|channels?))",
        r"(?:model|server) is (?:currently |still )?(?:loading|starting|warming|not ready)|loading model",
        r"繁忙|拥挤|访问量过大",
        codes="overloaded_error overloaded server_is_overloaded engine_overloaded engine_overloaded_error slow_down"
        " model_overloaded service_unavailable_error service_unavailable serviceunavailable nocapacity"
        " capacity_exceeded model_capacity_exhausted queue_exceeded unavailable unavailable_error"
        " modelnotreadyexception serviceunavailableexception server_overloaded no_available_capacity",
        statuses={424, 425, 429, 498, 500, 502, 503, 529},
    ),
    row(FailureClass.OVERLOADED, statuses={498, 529}),
)

RATE_LIMIT = (
    row(
        FailureClass.RATE_LIMIT,
        codes="rate_limit_exceeded rate_limit_error rate_limited rate_limit ratelimitexceeded ratelimiterror"
        " too_many_requests too_many_requests_error toomanyrequests throttlingexception throttling"
        " throttling.ratequota toomanyrequestsexception servicequotaexceededexception request_limit_exceeded"
        " limitexceededexception request_quota_exceeded token_quota_exceeded quotaexceeded userratelimitexceeded"
        " model_rate_limit resource_exhausted ratelimitreached",
    ),
    row(
        FailureClass.RATE_LIMIT,
        r"rate[ -]?limit\w* (?:is |was |has been )?(?:reached|exceed)",
        r"(?:exceeded|hit|reached).{0,30} rate[ -]?limit",
        r"too many (?:requests|concurrent|connections)",
        r"throttled",
        statuses={400, 403, 500, 503},
    ),
    row(FailureClass.RATE_LIMIT, statuses={429}),
)

RATE_LIMIT_SCOPE = (
    (Scope.MODEL, row(FailureClass.RATE_LIMIT, r"upstream|specific to this model|for (?:this )?model\b")),
    (Scope.MODEL, row(FailureClass.RATE_LIMIT, codes="model_rate_limit")),
    (
        Scope.ACCOUNT,
        row(
            FailureClass.RATE_LIMIT,
            r"free-models-per",
            r"requests rate limit exceeded",
            r"(?:your|account'?s?) (?:account'?s? )?rate limit is",
            codes="credit_limit",
        ),
    ),
    (Scope.ACCOUNT, row(FailureClass.RATE_LIMIT, speakers="anthropic together fireworks deepseek minimax moonshot")),
)
"""The scope of a rate limit: first match. Without a match, limits are counted per model."""

CODES_OF_SERVERS = (
    row(FailureClass.TIMEOUT, codes="modeltimeoutexception", statuses=CLIENT_ERRORS | {500}),
    row(
        FailureClass.SERVER,
        r"model has crashed|has unexpectedly stopped|runner process (?:has )?terminated|^channel error",
        codes="modelerrorexception modelstreamerrorexception internalserverexception internalfailure internal"
        " internal_server_error",
        statuses=CLIENT_ERRORS,
    ),
)

STATUSES = (
    row(FailureClass.CONNECT, statuses={407}),  # our own proxy requires a password: nothing reached the provider
    row(FailureClass.TIMEOUT, statuses={408, 460, 499, 524, 598}),
    row(FailureClass.OVERLOADED, statuses={503}),
    row(FailureClass.BAD_REQUEST, statuses={501}),
    row(FailureClass.SERVER, statuses=SERVER_ERRORS | {409, 421, 424, 425}),
    row(FailureClass.BAD_REQUEST, statuses={400, 405, 406, 411, 412, 415, 422}),
    row(FailureClass.BAD_RESPONSE, statuses=range(300, 400)),
)

_FINISH_REASONS = (
    (FailureClass.RATE_LIMIT, re.compile(r"rate_?limit|too_?many_?requests|throttl")),
    (
        FailureClass.OVERLOADED,
        re.compile(
            r"insufficient_?system_?resource|overload|(?:no|at|over|insufficient)_?capacity|unavailable|busy|queue_?full"
        ),
    ),
)


def class_of_finish(reason: str) -> FailureClass:
    """The failure class of an answer with an unsuccessful finish reason: an overload, if the reason says so."""
    said = reason.lower()
    return next((cls for cls, words in _FINISH_REASONS if words.search(said)), FailureClass.BAD_RESPONSE)
