"""What each provider's refusals mean: written from their documentation, in the form in which they send them."""

import pytest
from failure_cases import PLENTY, Case, aws, check, claude, delay, error, google, info, page, quota

from models.failure import FailureClass, Scope

F = FailureClass
S = Scope
EXCEEDED = "You exceeded your current quota, please check your plan and billing details."
OPENAI = [
    Case(
        "quota code", "openai", "openai", 429, {}, error(EXCEEDED, "insufficient_quota", "insufficient_quota"), F.QUOTA
    ),
    Case("project limit", "openai", "openai", 429, {}, error("Limit.", None, "project_spend_limit_exceeded"), F.QUOTA),
    Case("inactive", "openai", "openai", 429, {}, error("Account not active.", "billing_not_active"), F.QUOTA),
    Case(
        *("rpm with milliseconds", "openai", "openai", 429, {"retry-after-ms": "1530", "retry-after": "2"}),
        error("Rate limit reached for gpt-4o on requests per min.", "requests", "rate_limit_exceeded"),
        *(F.RATE_LIMIT, 1.53, S.MODEL),
    ),
    Case(
        *("tpm in words", "openai", "openai", 429, PLENTY),
        error(
            "Rate limit reached on tokens per min (TPM). Please try again in 640ms.", "tokens", "rate_limit_exceeded"
        ),
        *(F.RATE_LIMIT, 0.64, S.MODEL),
    ),
    Case(
        *("reset header", "openai", "openai", 429),
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s", "x-ratelimit-reset-requests": "9h"}
        | {"x-ratelimit-remaining-requests": "7"},
        error("Slow.", "tokens", "rate_limit_exceeded"),
        *(F.RATE_LIMIT, 90.0),
    ),
    Case(
        "slow down",
        "openai",
        "openai",
        503,
        {},
        error("Slow down.", "service_unavailable_error", "slow_down"),
        F.OVERLOADED,
    ),
    Case("500", "openai", "openai", 500, {}, error("The server had an error.", "server_error"), F.SERVER),
    Case(
        "no key",
        "openai",
        "openai",
        401,
        {},
        error("You didn't provide an API key.", "invalid_request_error"),
        F.CREDENTIAL,
    ),
    Case(
        *("country", "openai", "openai", 403, {}),
        error(
            "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"
        ),
        *(F.REGION, None, S.ACCOUNT),
    ),
    Case(
        *("project without model", "openai", "openai", 403, {}),
        error("Project `p` does not have access to model `gpt-5`", "invalid_request_error", "model_not_found"),
        *(F.MODEL_MISSING, None, S.MODEL),
    ),
    Case(
        *("unverified", "openai", "openai", 404, {}),
        error("Your organization must be verified to use the model `o3`.", "invalid_request_error", "model_not_found"),
        F.MODEL_MISSING,
    ),
    Case(
        *("context", "openai", "openai", 400, PLENTY),
        error(
            "This model's maximum context length is 8192 tokens.", "invalid_request_error", "context_length_exceeded"
        ),
        *(F.CONTEXT_LENGTH, None, S.REQUEST),
    ),
    Case(
        *("policy", "openai", "openai", 400, PLENTY),
        error(
            "Your request was rejected as a result of our safety system.",
            "invalid_request_error",
            "content_policy_violation",
        ),
        *(F.CONTENT_FILTER, None, S.REQUEST),
    ),
    Case(
        *("parameter", "openai", "openai", 400, PLENTY | {"retry-after": "3"}),
        error(
            "Unsupported value: 'temperature' does not support 0.5 with this model. Only 1 is.", "invalid_request_error"
        ),
        *(F.BAD_REQUEST, None, S.REQUEST),
    ),
    Case(
        *("max_tokens", "openai", "openai", 400, {}),
        error(
            "max_tokens is too large: 90000. This model supports at most 16384 completion tokens.",
            "invalid_request_error",
        ),
        F.BAD_REQUEST,
    ),
    Case(
        "cloudflare 520",
        "openai",
        "openai",
        520,
        {},
        page("openai.com | 520: Web server is returning an unknown error"),
        F.SERVER,
    ),
    Case("cloudflare 522", "openai", "openai", 522, {}, page("openai.com | 522: Connection timed out"), F.SERVER),
    Case("cloudflare 524", "openai", "openai", 524, {}, page("openai.com | 524: A timeout occurred"), F.TIMEOUT),
    Case(
        "cloudflare guard",
        "openai",
        "openai",
        403,
        {"cf-mitigated": "challenge"},
        page("Attention Required!"),
        F.BAD_RESPONSE,
    ),
]

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

ANTHROPIC = [
    Case(
        *("empty balance", "anthropic", "anthropic", 400, {}),
        claude("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        *(F.QUOTA, None, S.ACCOUNT),
    ),
    Case(
        *("workspace limit", "anthropic", "anthropic", 400, {}),
        claude(
            "invalid_request_error", "You have reached your specified workspace API usage limits. Access on 2027-01-01."
        ),
        F.QUOTA,
    ),
    Case("402", "anthropic", "anthropic", 402, {}, claude("billing_error", "See your payment details."), F.QUOTA),
    Case(
        *("tier's cap", "anthropic", "anthropic", 429, {}),
        claude("rate_limit_error", "Paused.", details={"error_code": "enforced_spend_limit_reached"}),
        *(F.QUOTA, None, S.ACCOUNT),
    ),
    Case(
        *("ramp", "anthropic", "anthropic", 429, {"retry-after": "7"}),
        claude("rate_limit_error", "Grow slowly.", details={"error_code": "ramp_limit_exceeded"}),
        *(F.RATE_LIMIT, 7.0, S.ACCOUNT),
    ),
    Case("529", "anthropic", "anthropic", 529, {}, claude("overloaded_error", "Overloaded"), F.OVERLOADED),
    Case("key", "anthropic", "anthropic", 401, {}, claude("authentication_error", "invalid x-api-key"), F.CREDENTIAL),
    Case(
        *("organization", "anthropic", "anthropic", 400, {}),
        claude("invalid_request_error", "This organization has been disabled."),
        *(F.CREDENTIAL, None, S.ACCOUNT),
    ),
    Case(
        *("input and output", "anthropic", "anthropic", 400, {}),
        claude("invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        F.CONTEXT_LENGTH,
    ),
    Case(
        *("output only", "anthropic", "anthropic", 400, {}),
        claude(
            "invalid_request_error", "max_tokens: 99999 > 64000, which is the maximum allowed number of output tokens"
        ),
        F.BAD_REQUEST,
    ),
    Case(
        *("filter", "anthropic", "anthropic", 400, {}),
        claude("invalid_request_error", "Output blocked by content filtering policy"),
        F.CONTENT_FILTER,
    ),
    Case("504", "anthropic", "anthropic", 504, {}, claude("timeout_error", "Request timed out"), F.SERVER),
    Case("conflict", "anthropic", "anthropic", 409, {}, claude("conflict_error", "Conflict."), F.SERVER),
    Case(
        "field",
        "anthropic",
        "anthropic",
        400,
        {},
        claude("invalid_request_error", "messages: Field required"),
        F.BAD_REQUEST,
    ),
    Case(
        "minimax context",
        "minimax",
        "anthropic",
        400,
        {},
        claude("x", "context window exceeds limit (2013)"),
        F.CONTEXT_LENGTH,
    ),
    Case(
        "minimax filter",
        "minimax",
        "anthropic",
        500,
        {},
        claude("api_error", "input new_sensitive (1026)"),
        F.CONTENT_FILTER,
    ),
    Case(
        "minimax rate",
        "minimax",
        "anthropic",
        429,
        {},
        claude("rate_limit_error", "RPM (1002)"),
        F.RATE_LIMIT,
        None,
        S.ACCOUNT,
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
    Case(
        "blocked",
        "gemini",
        "gemini",
        200,
        {},
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
        F.CONTENT_FILTER,
    ),
    Case("nothing", "gemini", "gemini", 200, {}, {"usageMetadata": {"promptTokenCount": 1}}, F.BAD_RESPONSE),
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


@pytest.mark.parametrize("case", OPENAI + AZURE + ANTHROPIC + GOOGLE + BEDROCK, ids=lambda c: f"{c.provider}: {c.name}")
def test_a_refusal_of_the_large_providers_is_understood(case: Case) -> None:
    check(case)
