"""The tables of error responses: status, messages and codes of each provider for the same condition.

A dialect that is not openai, anthropic, gemini or bedrock speaks OpenAI's protocol and differs in the rows it has. The
wording is ours; the codes and the phrases that a client may match are the providers'. `{model}` and `{wait}` (the
hint's duration) are filled in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.worker.mock.config import DialectName, Fail


@dataclass(frozen=True, slots=True)
class Refusal:
    """`kind` and `code` go where the dialect has a place for them."""

    status: int
    message: str
    kind: str | None = None
    code: str | None = None


_INVALID = "invalid_request_error"

_OPENAI = {
    Fail.RATE_LIMIT: Refusal(
        429,
        "Rate limit reached for {model} on requests per min (RPM). Please try again in {wait}.",
        "requests",
        "rate_limit_exceeded",
    ),
    Fail.RATE_LIMIT_NO_HINT: Refusal(429, "Rate limit reached for {model}.", "requests", "rate_limit_exceeded"),
    Fail.RATE_LIMIT_PER_DAY: Refusal(
        429,
        "Rate limit reached for {model} on requests per day (RPD). Please try again in {wait}.",
        "requests",
        "rate_limit_exceeded",
    ),
    Fail.SERVER: Refusal(500, "Something went wrong on our side while we handled the request.", "server_error"),
    Fail.OVERLOADED: Refusal(503, "The engine is currently overloaded.", "server_error", "server_is_overloaded"),
    Fail.CREDENTIAL: Refusal(401, "Incorrect API key provided.", _INVALID, "invalid_api_key"),
    Fail.QUOTA: Refusal(429, "No quota is left on this plan.", "insufficient_quota", "insufficient_quota"),
    Fail.MODEL_MISSING: Refusal(404, "The model `{model}` does not exist here.", _INVALID, "model_not_found"),
    Fail.CONTEXT_LENGTH: Refusal(
        400, "The maximum context length of {model} is exceeded.", _INVALID, "context_length_exceeded"
    ),
    Fail.TOO_LARGE: Refusal(
        429, "Request too large for {model} on tokens per min (TPM).", "tokens", "rate_limit_exceeded"
    ),
    Fail.CONTENT_FILTER: Refusal(400, "The safety system said no.", _INVALID, "content_policy_violation"),
    Fail.BAD_REQUEST: Refusal(400, "A parameter has a value that is not allowed.", _INVALID, "invalid_value"),
    Fail.REGION: Refusal(
        403, "Not served in your country.", "request_forbidden", "unsupported_country_region_territory"
    ),
}

_AZURE = {
    Fail.RATE_LIMIT: Refusal(429, "The call rate limit of {model} is exceeded. Please retry after {wait}.", code="429"),
    Fail.RATE_LIMIT_NO_HINT: Refusal(429, "The token rate limit of {model} is exceeded.", code="429"),
    Fail.CREDENTIAL: Refusal(401, "Access denied: invalid subscription key.", code="401"),
    Fail.MODEL_MISSING: Refusal(404, "There is no deployment {model} in this resource.", code="DeploymentNotFound"),
    Fail.CONTENT_FILTER: Refusal(400, "The prompt met the content management policy.", code="content_filter"),
}

_GROQ = {
    Fail.OVERLOADED: Refusal(498, "The capacity of this tier is exceeded.", "capacity_exceeded"),
    Fail.TOO_LARGE: Refusal(
        413, "Request too large for model `{model}` on tokens per minute (TPM).", "tokens", "rate_limit_exceeded"
    ),
    Fail.MODEL_MISSING: Refusal(400, "Model `{model}` has been decommissioned.", _INVALID, "model_decommissioned"),
}

_MISTRAL = {
    Fail.RATE_LIMIT: Refusal(429, "Requests rate limit exceeded", "rate_limited", "1300"),
    Fail.RATE_LIMIT_NO_HINT: Refusal(429, "Service tier capacity exceeded for {model}.", _INVALID),
    Fail.CREDENTIAL: Refusal(401, "Unauthorized"),
    Fail.MODEL_MISSING: Refusal(400, "Invalid model: {model}", "invalid_model", "1500"),
    Fail.TOO_LARGE: Refusal(413, "The request body is too large.", _INVALID),
}

_OPENROUTER = {
    Fail.RATE_LIMIT_PER_DAY: Refusal(429, "Rate limit exceeded: free-models-per-day."),
    Fail.OVERLOADED: Refusal(503, "No provider of {model} is available at the moment."),
    Fail.QUOTA: Refusal(402, "Insufficient credits."),
    Fail.MODEL_MISSING: Refusal(404, "No endpoints found for {model}."),
    Fail.CONTENT_FILTER: Refusal(403, "{model} requires moderation, and your input was flagged."),
    Fail.TOO_LARGE: Refusal(413, "The request body is too large."),
}

_XAI = {
    Fail.CREDENTIAL: Refusal(400, "Incorrect API key provided.", code="Client specified an invalid argument"),
    Fail.QUOTA: Refusal(429, "Your team has used all available credits.", code="Some resource has been exhausted"),
    Fail.CONTEXT_LENGTH: Refusal(
        400, "This model's maximum prompt length is exceeded.", code="Client specified an invalid argument"
    ),
    Fail.CONTENT_FILTER: Refusal(403, "Content violates usage guidelines.", code="permission-denied"),
    Fail.TOO_LARGE: Refusal(413, "The request body is too large."),
}

_ANTHROPIC = {
    Fail.RATE_LIMIT: Refusal(429, "The rate limit of this organization is reached.", "rate_limit_error"),
    Fail.RATE_LIMIT_NO_HINT: Refusal(429, "The rate limit of this account is reached.", "rate_limit_error"),
    Fail.RATE_LIMIT_PER_DAY: Refusal(429, "The daily rate limit (requests per day) is reached.", "rate_limit_error"),
    Fail.SERVER: Refusal(500, "Internal server error", "api_error"),
    Fail.OVERLOADED: Refusal(529, "Overloaded", "overloaded_error"),
    Fail.CREDENTIAL: Refusal(401, "invalid x-api-key", "authentication_error"),
    Fail.QUOTA: Refusal(400, "Your credit balance is too low for this request.", _INVALID),
    Fail.MODEL_MISSING: Refusal(404, "model: {model}", "not_found_error"),
    Fail.CONTEXT_LENGTH: Refusal(400, "prompt is too long for {model}", _INVALID),
    Fail.TOO_LARGE: Refusal(413, "The request exceeds the maximum size.", "request_too_large"),
    Fail.CONTENT_FILTER: Refusal(400, "Blocked by our content filtering policy.", _INVALID),
    Fail.BAD_REQUEST: Refusal(400, "temperature: must be between 0 and 1", _INVALID),
    Fail.REGION: Refusal(403, "Request not allowed", "forbidden"),
}

_GEMINI = {
    Fail.RATE_LIMIT: Refusal(
        429, "You exceeded your current quota of requests per minute. Please retry in {wait}.", "RESOURCE_EXHAUSTED"
    ),
    Fail.RATE_LIMIT_NO_HINT: Refusal(429, "Resource has been exhausted.", "RESOURCE_EXHAUSTED"),
    Fail.RATE_LIMIT_PER_DAY: Refusal(429, "You exceeded your current quota of requests per day.", "RESOURCE_EXHAUSTED"),
    Fail.SERVER: Refusal(500, "An internal error has occurred.", "INTERNAL"),
    Fail.OVERLOADED: Refusal(503, "The model is overloaded.", "UNAVAILABLE"),
    Fail.CREDENTIAL: Refusal(400, "API key not valid.", "INVALID_ARGUMENT", "API_KEY_INVALID"),
    Fail.QUOTA: Refusal(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"),
    Fail.MODEL_MISSING: Refusal(404, "models/{model} is not found for this API version.", "NOT_FOUND"),
    Fail.CONTEXT_LENGTH: Refusal(
        400, "The input token count exceeds the maximum number of tokens allowed.", "INVALID_ARGUMENT"
    ),
    Fail.TOO_LARGE: Refusal(400, "Request payload size exceeds the limit.", "INVALID_ARGUMENT"),
    Fail.CONTENT_FILTER: Refusal(200, "", code="PROHIBITED_CONTENT"),
    Fail.BAD_REQUEST: Refusal(400, "Invalid value at 'generation_config.temperature'.", "INVALID_ARGUMENT"),
    Fail.REGION: Refusal(400, "User location is not supported here.", "FAILED_PRECONDITION"),
}

_BEDROCK = {
    Fail.RATE_LIMIT: Refusal(429, "Too many requests, wait before the next one.", "ThrottlingException"),
    Fail.RATE_LIMIT_NO_HINT: Refusal(429, "Too many tokens, wait before the next one.", "ThrottlingException"),
    Fail.RATE_LIMIT_PER_DAY: Refusal(429, "Too many tokens per day.", "ThrottlingException"),
    Fail.SERVER: Refusal(500, "Unexpected error during processing.", "InternalServerException"),
    Fail.OVERLOADED: Refusal(503, "Bedrock is unable to process the request.", "ServiceUnavailableException"),
    Fail.CREDENTIAL: Refusal(
        403, "The security token included in the request is invalid.", "UnrecognizedClientException"
    ),
    Fail.QUOTA: Refusal(403, "INVALID_PAYMENT_INSTRUMENT: no valid payment instrument.", "AccessDeniedException"),
    Fail.MODEL_MISSING: Refusal(400, "The provided model identifier is invalid.", "ValidationException"),
    Fail.CONTEXT_LENGTH: Refusal(400, "Input is too long for {model}.", "ValidationException"),
    Fail.TOO_LARGE: Refusal(413, "The request is larger than the service takes.", "RequestEntityTooLargeException"),
    Fail.CONTENT_FILTER: Refusal(400, "Blocked by the content filtering policy.", "ValidationException"),
    Fail.BAD_REQUEST: Refusal(400, "Malformed input request: temperature.", "ValidationException"),
    Fail.REGION: Refusal(403, "Access from unsupported countries or regions is not allowed.", "AccessDeniedException"),
}

REFUSALS: Mapping[DialectName, Mapping[Fail, Refusal]] = {
    "openai": _OPENAI,
    "azure": _OPENAI | _AZURE,
    "groq": _OPENAI | _GROQ,
    "mistral": _OPENAI | _MISTRAL,
    "openrouter": _OPENAI | _OPENROUTER,
    "xai": _OPENAI | _XAI,
    "anthropic": _ANTHROPIC,
    "gemini": _GEMINI,
    "bedrock": _BEDROCK,
}
