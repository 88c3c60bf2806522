"""All evidence in order of precedence, and the scope of a failure. The first matching row wins.

Order carries meaning. Rows that resemble another class precede it: Google says "quota" for a rate, an oversized request
is rejected as a rate limit, and an empty balance arrives with almost any status. Sources: the providers' published
error lists and recorded answers. A row without a provider applies to all, because gateways and compatible servers
repeat each other's messages.
"""

from understudy.models.failure import FailureClass, Scope
from understudy.worker.failures.about_accounts import CREDENTIAL, MODEL_MISSING, NOTHING_HERE, QUOTA, REGION
from understudy.worker.failures.about_load import CODES_OF_SERVERS, OVERLOADED, RATE_LIMIT, STATUSES
from understudy.worker.failures.about_requests import CONTENT_FILTER, CONTEXT_LENGTH, MODEL_SLIP, PAGES, TOO_LARGE
from understudy.worker.failures.evidence import row

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
