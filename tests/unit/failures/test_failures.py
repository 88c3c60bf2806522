"""What refusals of OpenAI and Anthropic mean, by their documentation and in their format."""

import pytest
from failure_cases import PLENTY, Case, check, claude, error, page

from understudy.models.failure import FailureClass, Scope

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


@pytest.mark.parametrize("case", OPENAI + ANTHROPIC, ids=lambda c: f"{c.provider}: {c.name}")
def test_a_refusal_of_openai_or_anthropic_is_understood(case: Case) -> None:
    check(case)
