"""What refusals of Azure, Google and Bedrock mean: the clouds, each with an envelope of its own."""

import pytest
from failure_cases import Case, aws, check, delay, error, google, info, quota

from understudy.models.failure import FailureClass, Scope

F = FailureClass
S = Scope
EXCEEDED = "You exceeded your current quota, please check your plan and billing details."
AZURE = [
    Case(
        *("call rate", "azure", "openai", 429, {"x-ms-retry-after-ms": "2500"}),
        error(
            "Requests have exceeded call rate limit of your current pricing tier. Please retry after 3 seconds.",
            None,
            "429",
        ),
        *(F.RATE_LIMIT, 2.5, S.MODEL),
    ),
    Case(
        *("peak load", "azure", "openai", 429, {}),
        error(
            "The system is currently experiencing high demand. Please retry after 6 seconds.", None, "too_many_requests"
        ),
        *(F.OVERLOADED, 6.0),
    ),
    Case(
        "no capacity", "azure", "openai", 429, {}, error("The service has no room.", None, "NoCapacity"), F.OVERLOADED
    ),
    Case("no resource", "azure", "openai", 404, {}, error("Resource not found", None, "404"), F.MODEL_MISSING),
    Case(
        *("wrong operation", "azure", "openai", 400, {}),
        error(
            "The chatCompletion operation does not work with the specified model, dall-e-3.",
            None,
            "OperationNotSupported",
        ),
        F.MODEL_MISSING,
    ),
    Case(
        *("filter without code", "azure", "openai", 400, {}),
        error("Filtered.", None, None, innererror={"code": "ResponsibleAIPolicyViolation"}),
        *(F.CONTENT_FILTER, None, S.REQUEST),
    ),
    Case("private", "azure", "openai", 403, {}, error("Public access is disabled.", None, "403"), F.CREDENTIAL),
    Case(
        *("gateway's own quota", "azure", "openai", 403, {}),
        {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 02:12:11."},
        *(F.RATE_LIMIT, 7931.0),
    ),
]

GOOGLE = [
    Case(
        *("per minute", "gemini", "gemini", 429, {}),
        google(
            429, "RESOURCE_EXHAUSTED", EXCEEDED, quota("GenerateRequestsPerMinutePerProjectPerModel"), delay("34.07s")
        ),
        *(F.RATE_LIMIT, 34.07, S.MODEL),
    ),
    Case(
        *("per project", "gemini", "gemini", 429, {}),
        google(429, "RESOURCE_EXHAUSTED", EXCEEDED, quota("RequestsPerMinutePerProject"), delay("5s")),
        *(F.RATE_LIMIT, 5.0, S.ACCOUNT),
    ),
    Case("no details", "gemini", "gemini", 429, {}, google(429, "X", EXCEEDED), F.RATE_LIMIT, None, S.MODEL),
    Case(
        *("openai surface", "mine", "openai", 429, {}),
        [google(429, "RESOURCE_EXHAUSTED", EXCEEDED, delay("12s"))],
        *(F.RATE_LIMIT, 12.0),
    ),
    Case(
        *("prepaid", "gemini", "gemini", 429, {}),
        google(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."),
        *(F.QUOTA, None, S.ACCOUNT),
    ),
    Case(
        "key not found",
        "gemini",
        "gemini",
        400,
        {},
        google(400, "X", "API Key not found.", info("API_KEY_INVALID")),
        F.CREDENTIAL,
    ),
    Case(
        "key expired",
        "gemini",
        "gemini",
        400,
        {},
        google(400, "INVALID_ARGUMENT", "API key expired. Renew it."),
        F.CREDENTIAL,
    ),
    Case(
        "leaked",
        "gemini",
        "gemini",
        403,
        {},
        google(403, "PERMISSION_DENIED", "Your API key was reported as leaked."),
        F.CREDENTIAL,
    ),
    Case(
        "suspended", "gemini", "gemini", 403, {}, google(403, "X", "Denied.", info("CONSUMER_SUSPENDED")), F.CREDENTIAL
    ),
    Case("billing off", "vertex", "gemini", 403, {}, google(403, "X", "Denied.", info("BILLING_DISABLED")), F.QUOTA),
    Case(
        *("free tier", "gemini", "gemini", 400, {}),
        google(
            400, "FAILED_PRECONDITION", "Gemini API free tier is not available in your country. Please enable billing."
        ),
        F.REGION,
    ),
    Case(
        *("context", "gemini", "gemini", 400, {}),
        google(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
        F.CONTEXT_LENGTH,
    ),
    Case(
        *("context", "vertex", "gemini", 400, {}),
        [google(400, "INVALID_ARGUMENT", "The input token count is 40000 but model only supports up to 32768.")],
        F.CONTEXT_LENGTH,
    ),
    Case(
        *("publisher model", "vertex", "gemini", 404, {}),
        google(
            404, "NOT_FOUND", "Publisher Model `projects/p/x` was not found or your project does not have access to it."
        ),
        *(F.MODEL_MISSING, None, S.MODEL),
    ),
    Case("overload", "gemini", "gemini", 503, {}, google(503, "UNAVAILABLE", "The model is overloaded."), F.OVERLOADED),
    Case("internal", "gemini", "gemini", 500, {}, google(500, "INTERNAL", "An internal error has occurred."), F.SERVER),
    Case("deadline", "gemini", "gemini", 504, {}, google(504, "DEADLINE_EXCEEDED", "Deadline expired."), F.SERVER),
    Case("cancelled", "gemini", "gemini", 499, {}, google(499, "CANCELLED", "The operation was cancelled."), F.TIMEOUT),
    Case(
        "schema",
        "gemini",
        "gemini",
        400,
        {},
        google(400, "INVALID_ARGUMENT", "Unknown name \"x\" at 'y'."),
        F.BAD_REQUEST,
    ),
]

BEDROCK = [
    Case(
        "throttled",
        "bedrock",
        "bedrock",
        429,
        aws("ThrottlingException"),
        {"message": "Too many requests."},
        F.RATE_LIMIT,
        None,
        S.MODEL,
    ),
    Case("throttled as 400", "bedrock", "bedrock", 400, aws("ThrottlingException"), {"message": "Slow."}, F.RATE_LIMIT),
    Case(
        "not ready", "bedrock", "bedrock", 429, aws("ModelNotReadyException"), {"message": "Not ready."}, F.OVERLOADED
    ),
    Case(
        "unavailable",
        "bedrock",
        "bedrock",
        503,
        aws("ServiceUnavailableException"),
        {"message": "Unable."},
        F.OVERLOADED,
    ),
    Case(
        "model timeout", "bedrock", "bedrock", 408, aws("ModelTimeoutException"), {"message": "Timed out."}, F.TIMEOUT
    ),
    Case("model error", "bedrock", "bedrock", 424, aws("ModelErrorException"), {"message": "Model failed."}, F.SERVER),
    Case(
        "expired",
        "bedrock",
        "bedrock",
        403,
        aws("ExpiredTokenException"),
        {"message": "Expired."},
        F.CREDENTIAL,
        None,
        S.ACCOUNT,
    ),
    Case(
        "unknown key",
        "bedrock",
        "bedrock",
        403,
        {},
        {"__type": "com.amazon.coral#UnrecognizedClientException"},
        F.CREDENTIAL,
    ),
    Case(
        *("signature", "bedrock", "bedrock", 403, aws("InvalidSignatureException")),
        {"message": "The request signature we calculated does not match."},
        F.CREDENTIAL,
    ),
    Case(
        "retired",
        "bedrock",
        "bedrock",
        404,
        aws("ResourceNotFoundException"),
        {"message": "End of its life."},
        F.MODEL_MISSING,
    ),
    Case(
        *("profile", "bedrock", "bedrock", 400, aws("ValidationException")),
        {"message": "Invocation of model ID m with on-demand throughput isn’t supported."},
        *(F.MODEL_MISSING, None, S.MODEL),
    ),
    Case(
        *("agreement", "bedrock", "bedrock", 403, aws("AccessDeniedException")),
        {"message": "Model access is denied due to INVALID_PAYMENT_INSTRUMENT: add a valid payment instrument."},
        F.QUOTA,
    ),
    Case(
        *("countries", "bedrock", "bedrock", 403, aws("AccessDeniedException")),
        {"message": "Access to these models is not allowed from unsupported countries, regions, or territories."},
        F.REGION,
    ),
    Case(
        "context",
        "bedrock",
        "bedrock",
        400,
        aws("ValidationException"),
        {"message": "Input is too long for requested model."},
        F.CONTEXT_LENGTH,
    ),
    Case(
        *("output", "bedrock", "bedrock", 400, aws("ValidationException")),
        {"message": "The maximum tokens you requested exceeds the model limit of 4096."},
        F.BAD_REQUEST,
    ),
    Case(
        "shape",
        "bedrock",
        "bedrock",
        400,
        aws("ValidationException"),
        {"message": "Malformed input request."},
        F.BAD_REQUEST,
    ),
]


@pytest.mark.parametrize("case", AZURE + GOOGLE + BEDROCK, ids=lambda case: f"{case.provider}: {case.name}")
def test_a_refusal_of_a_cloud_is_understood(case: Case) -> None:
    check(case)
