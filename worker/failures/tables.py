"""All evidence in the order in which it is weighed, and how far a failure reaches. The first row that fits wins.

Order carries meaning. What looks like a neighbour's words stands before the neighbour: Google says "quota" for a
rate, a request that is too large is refused as a rate limit, and an empty balance arrives as almost any status.
Sources: the providers' published error lists and recorded answers. A row that names no provider holds for all,
because gateways and compatible servers repeat each other's words.
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
"""How far a rate limit reaches: first fit. Where none fits, limits are counted per model."""
