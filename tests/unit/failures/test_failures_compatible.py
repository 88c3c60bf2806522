"""What refusals from OpenAI-compatible providers and local servers mean."""

import pytest
from failure_cases import NOW, Case, at, check, error, page, wrapped

from understudy.models.failure import FailureClass, Scope

F = FailureClass
S = Scope
INVALID = "invalid_request_error"


GROQ = [
    at(
        "groq",
        "per day",
        429,
        error("Limit of requests per day (RPD). Please try again in 7m12s.", "requests"),
        F.RATE_LIMIT,
        432.0,
    ),
    at(
        "groq",
        "retry-after",
        429,
        error("x", "tokens", "rate_limit_exceeded"),
        F.RATE_LIMIT,
        3.0,
        S.MODEL,
        retry_after="3",
    ),
    at(
        "groq",
        "too large",
        413,
        error("Request too large for model `m` on tokens per minute (TPM).", "tokens", "rate_limit_exceeded"),
        F.TOO_LARGE,
        None,
        S.REQUEST,
    ),
    at(
        "groq",
        "context",
        400,
        error("Please reduce the length of the messages or completion.", INVALID, "context_length_exceeded"),
        F.CONTEXT_LENGTH,
    ),
    at(
        "groq",
        "max_tokens",
        400,
        error("`max_tokens` must be less than or equal to `8192`; see the `context_window`.", INVALID),
        F.BAD_REQUEST,
    ),
    at(
        "groq",
        "no model",
        404,
        error("The model `m` does not exist or you do not have access to it.", INVALID, "model_not_found"),
        F.MODEL_MISSING,
    ),
    at("groq", "key", 401, error("Invalid API Key", INVALID, "invalid_api_key"), F.CREDENTIAL),
    at(
        "groq",
        "restricted",
        400,
        error("Organization has been restricted.", INVALID, "organization_restricted"),
        F.CREDENTIAL,
    ),
    at("groq", "busy", 503, error("Service unavailable.", "internal_server_error"), F.OVERLOADED),
]

MISTRAL = [
    at(
        "mistral",
        "rate",
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
        F.RATE_LIMIT,
    ),
    at("mistral", "requests", 429, {"message": "Requests rate limit exceeded"}, F.RATE_LIMIT, None, S.ACCOUNT),
    at(
        "mistral",
        "tier",
        429,
        {"message": "Service tier capacity exceeded for this model.", "code": "3505"},
        F.RATE_LIMIT,
        None,
        S.MODEL,
    ),
    at("mistral", "key", 401, {"detail": "Unauthorized"}, F.CREDENTIAL),
    at(
        "mistral",
        "no model",
        400,
        {"object": "error", "message": "Invalid model: m", "type": "invalid_model", "code": "1500"},
        F.MODEL_MISSING,
    ),
    at(
        "mistral",
        "context",
        400,
        {
            "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
            "code": "3051",
        },
        F.CONTEXT_LENGTH,
    ),
    at(
        "mistral",
        "field",
        422,
        {
            "detail": [
                {
                    "type": "missing",
                    "loc": ["body", "messages"],
                    "msg": "Field required",
                    "input": "rate limit exceeded",
                }
            ]
        },
        F.BAD_REQUEST,
    ),
    at("mistral", "proxy", 502, page("502 Bad Gateway"), F.SERVER),
]

OPENROUTER = [
    at("openrouter", "credits", 402, error("Insufficient credits. Add more.", None, 402), F.QUOTA, None, S.ACCOUNT),
    at(
        "openrouter",
        "afford",
        402,
        error("You requested up to 65536 tokens, but can only afford 3000.", None, 402),
        F.QUOTA,
    ),
    at("openrouter", "402 that passes", 402, error("Later.", None, 402), F.RATE_LIMIT, 30.0, retry_after="30"),
    at("openrouter", "key limit", 403, error("Key limit exceeded (total limit).", None, 403), F.QUOTA, None, S.ACCOUNT),
    at(
        "openrouter",
        "free per minute",
        429,
        error(
            "Rate limit exceeded: free-models-per-min.",
            None,
            429,
            metadata={"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int((NOW + 20) * 1000))}},
        ),
        F.RATE_LIMIT,
        20.0,
        S.ACCOUNT,
    ),
    at(
        "openrouter",
        "google says quota",
        429,
        wrapped(
            429,
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"retryDelay": "9s"}],
                }
            },
        ),
        F.RATE_LIMIT,
        9.0,
        S.MODEL,
    ),
    at(
        "openrouter",
        "no endpoints",
        404,
        error("No endpoints found for a/b:free.", None, 404),
        F.MODEL_MISSING,
        None,
        S.MODEL,
    ),
    at(
        "openrouter",
        "data policy",
        404,
        error("No endpoints found matching your data policy.", None, 404),
        F.MODEL_MISSING,
    ),
    at("openrouter", "not an id", 400, error("foo/bar is not a valid model ID", None, 400), F.MODEL_MISSING),
    at("openrouter", "region", 403, error("This model is not available in your region.", None, 403), F.REGION),
    at(
        "openrouter",
        "inner context",
        400,
        wrapped(
            400,
            {
                "type": "error",
                "error": {"type": INVALID, "message": "prompt is too long: 210000 tokens > 200000 maximum"},
            },
        ),
        F.CONTEXT_LENGTH,
    ),
    at(
        "openrouter",
        "inner credit",
        400,
        wrapped(400, {"error": {"message": "Your credit balance is too low"}}),
        F.QUOTA,
    ),
    at("openrouter", "user", 401, error("User not found.", None, 401), F.CREDENTIAL),
    at("openrouter", "none left", 503, error("No instances available", None, 503), F.OVERLOADED),
    at("openrouter", "502", 502, error("Provider returned error", None, 502), F.SERVER),
    at("openrouter", "408", 408, error("Request timed out", None, 408), F.TIMEOUT),
]

XAI = [
    at(
        "xai",
        "no credits yet",
        403,
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your newly created team doesn't have any credits or licenses yet.",
        },
        F.QUOTA,
    ),
    at(
        "xai",
        "rate",
        429,
        {"code": "Some resource has been exhausted", "error": "Too many requests for team t and model grok-4."},
        F.RATE_LIMIT,
        None,
        S.MODEL,
    ),
    at(
        "xai",
        "no model",
        404,
        {
            "code": "Some requested entity was not found",
            "error": "The model grok-0 does not exist or your team t does not have access to it.",
        },
        F.MODEL_MISSING,
    ),
    at(
        "xai",
        "blocked key",
        403,
        {"code": "permission-denied", "error": "The API key xai-***AA is currently blocked."},
        F.CREDENTIAL,
    ),
    at(
        "xai",
        "argument",
        400,
        {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: stop"},
        F.BAD_REQUEST,
    ),
]

OTHERS = [
    at(
        "deepseek",
        "key",
        401,
        error("Authentication Fails, Your api key: ****fcc2 is invalid", "authentication_error"),
        F.CREDENTIAL,
    ),
    at("deepseek", "no model", 400, error("Model Not Exist", INVALID, INVALID), F.MODEL_MISSING, None, S.MODEL),
    at(
        "deepseek",
        "busy",
        503,
        error("Service is too busy. Switch temporarily.", "service_unavailable_error"),
        F.OVERLOADED,
    ),
    at(
        "deepseek",
        "context",
        400,
        error("This model's maximum context length is 131072 tokens. However, you requested 140000 tokens", INVALID),
        F.CONTEXT_LENGTH,
    ),
    at("deepseek", "rate", 429, error("Rate limit reached", "rate_limit"), F.RATE_LIMIT, None, S.ACCOUNT),
    at(
        "together",
        "credit",
        402,
        error("Credit limit exceeded. Add credit or upgrade your plan.", "credit_limit"),
        F.QUOTA,
    ),
    at(
        "together",
        "model's rate",
        429,
        error("You have reached the rate limit specific to this model m.", "model_rate_limit"),
        F.RATE_LIMIT,
        None,
        S.MODEL,
    ),
    at(
        "together",
        "dedicated",
        400,
        error("Unable to access non-serverless model m. Start an endpoint.", INVALID, "model_not_available"),
        F.MODEL_MISSING,
    ),
    at(
        "together",
        "context",
        422,
        error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193.", INVALID),
        F.CONTEXT_LENGTH,
    ),
    at(
        "together",
        "overload",
        503,
        error("The engine is currently overloaded, please try again later", "service_unavailable"),
        F.OVERLOADED,
    ),
    at(
        "fireworks",
        "no model",
        404,
        error("Model not found, inaccessible, and/or not deployed", "error", "NOT_FOUND"),
        F.MODEL_MISSING,
    ),
    at(
        "fireworks",
        "context",
        400,
        error("The prompt is too long: 9000, model maximum context length: 8191", "error", "BAD_REQUEST"),
        F.CONTEXT_LENGTH,
    ),
    at("fireworks", "key", 403, error("unauthorized", "error", "UNAUTHORIZED"), F.CREDENTIAL),
    at(
        "cerebras",
        "tokens",
        429,
        {
            "message": "Tokens per minute limit exceeded - too many tokens processed.",
            "type": "too_many_tokens_error",
            "param": "quota",
            "code": "token_quota_exceeded",
        },
        F.RATE_LIMIT,
        None,
        S.MODEL,
    ),
    at(
        "cerebras",
        "queue",
        429,
        {
            "message": "We're experiencing high traffic right now!",
            "type": "too_many_requests_error",
            "param": "queue",
            "code": "queue_exceeded",
        },
        F.OVERLOADED,
    ),
    at(
        "cerebras",
        "key",
        401,
        {"message": "Wrong API Key", "type": INVALID, "param": "api_key", "code": "wrong_api_key"},
        F.CREDENTIAL,
    ),
    at(
        "cerebras",
        "context",
        400,
        {
            "message": "Please reduce the length of the messages or completion. Current length is 9000",
            "code": "context_length_exceeded",
        },
        F.CONTEXT_LENGTH,
    ),
    at("perplexity", "page", 401, page("401 Authorization Required"), F.CREDENTIAL, None, S.ACCOUNT),
    at(
        "perplexity",
        "quota",
        401,
        error("You exceeded your current quota, please check your plan.", "insufficient_quota", 401),
        F.QUOTA,
    ),
    at(
        "perplexity",
        "rate",
        429,
        error("Request rate limit exceeded, please try again later.", "request_rate_limit_exceeded", 429),
        F.RATE_LIMIT,
    ),
]


@pytest.mark.parametrize(
    "case",
    GROQ + MISTRAL + OPENROUTER + XAI + OTHERS,
    ids=lambda case: f"{case.provider}: {case.name}",
)
def test_a_refusal_of_a_compatible_server_is_understood(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", [each for each in GROQ + OTHERS if each.scope is None], ids=lambda case: case.name)
def test_what_a_refusal_means_hardly_depends_on_how_the_user_named_the_provider(case: Case) -> None:
    check(case._replace(provider="my-own-name"))
