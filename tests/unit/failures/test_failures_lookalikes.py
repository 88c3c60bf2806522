"""Refusals whose words belong to another class, and pages and texts of proxies that know nothing about the provider."""

import pytest
from failure_cases import Case, at, check, error, page, wrapped

from understudy.models.failure import FailureClass

F = FailureClass
INVALID = "invalid_request_error"

LOOKALIKES = [
    at(
        "groq",
        "advice to pay",
        429,
        error("Limit 6000. Try again in 3s. Need more? See settings/billing", "tokens"),
        F.RATE_LIMIT,
        3.0,
    ),
    at(
        "openai",
        "payment method",
        429,
        error("Rate limit reached. Add a payment method to raise it.", "requests"),
        F.RATE_LIMIT,
    ),
    at("openai", "model named field", 400, error("model: Field required", INVALID), F.BAD_REQUEST),
    at(
        "bedrock",
        "model's own words",
        400,
        error("The model returned the following errors: key is not permitted"),
        F.BAD_REQUEST,
    ),
    at(
        "vertex",
        "may not exist",
        403,
        error("Permission 'x' denied on resource '/models/m' (or it may not exist)."),
        F.CREDENTIAL,
    ),
    at(
        "vertex",
        "project and model",
        400,
        error("Project `p` is not allowed to use Publisher Model `m`"),
        F.MODEL_MISSING,
    ),
    at(
        "ollama",
        "subscription",
        403,
        error("this model requires a subscription, upgrade for access", "permission_error"),
        F.MODEL_MISSING,
    ),
    at(
        "ollama",
        "session",
        429,
        error("you have reached your session usage limit, please wait or upgrade"),
        F.RATE_LIMIT,
    ),
    at("mistral", "subscription", 401, {"message": "Inactive subscription or usage limit reached"}, F.QUOTA),
    at(
        "tgi",
        "inputs",
        422,
        {"error": "`inputs` must have less than 4096 tokens. Given: 5000", "error_type": "validation"},
        F.CONTEXT_LENGTH,
    ),
    at("tgi", "generation", 424, {"error": "Request failed during generation", "error_type": "generation"}, F.SERVER),
    at("tgi", "overloaded", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, F.OVERLOADED),
    at(
        "lmstudio",
        "overflow",
        400,
        {"error": "Reached context length of 4096 tokens with this model"},
        F.CONTEXT_LENGTH,
    ),
    at("lmstudio", "crash", 400, {"error": "The model has crashed without additional information."}, F.SERVER),
    at(
        "vllm",
        "model's context",
        400,
        error("You passed 5000 tokens. The model's context length is only 4096.", "BadRequestError", 400),
        F.CONTEXT_LENGTH,
    ),
    at(
        "cohere", "total", 400, {"message": "total number of tokens in the prompt cannot exceed 4081"}, F.CONTEXT_LENGTH
    ),
    at("cohere", "trial", 429, {"message": "Trial keys are limited to 1000 API calls / month."}, F.QUOTA),
    at("apigee", "spike", 429, {"fault": {"faultstring": "Spike arrest violation"}}, F.RATE_LIMIT),
    at(
        "gemini",
        "thinking budget",
        400,
        error("Budget 0 is invalid. This model only works in thinking mode."),
        F.BAD_REQUEST,
    ),
    at("gemini", "feature", 400, error("Developer instruction is not enabled for models/gemma-3"), F.BAD_REQUEST),
    at("openai", "huge string", 400, error("string too long. Expected maximum length 1048576", INVALID), F.TOO_LARGE),
    at("openai", "long name", 400, error("string too long. Expected maximum length 64", INVALID), F.BAD_REQUEST),
    at("anthropic", "image", 400, error("image exceeds 5 MB maximum", INVALID), F.TOO_LARGE),
    at("openrouter", "delay as a field", 429, wrapped(429, "slow", retry_after_seconds=12), F.RATE_LIMIT, 12.0),
    at(
        "azure",
        "a deployment",
        404,
        error("The API deployment does not exist.", code="DeploymentNotFound"),
        F.MODEL_MISSING,
    ),
    at("openai", "a rate that never comes", 429, error("Request too large for gpt-4o.", "tokens"), F.TOO_LARGE),
    at("anthropic", "no model of that name", 404, error("model: claude-x"), F.MODEL_MISSING),
]

PROXIES = [
    at("mine", "nginx 400", 400, page("400 Bad Request"), F.BAD_RESPONSE),
    at("mine", "nginx 403", 403, page("403 Forbidden"), F.BAD_RESPONSE),
    at("mine", "nginx 404", 404, page("404 Not Found"), F.BAD_RESPONSE),
    at("mine", "nginx 413", 413, page("413 Request Entity Too Large"), F.TOO_LARGE),
    at("mine", "nginx 429", 429, page("429 Too Many Requests"), F.RATE_LIMIT),
    at("mine", "nginx 502", 502, page("502 Bad Gateway"), F.SERVER),
    at("mine", "nginx 503", 503, page("503 Service Temporarily Unavailable"), F.OVERLOADED, 12.0, retry_after="12"),
    at("mine", "envoy", 503, "no healthy upstream", F.OVERLOADED),
    at("mine", "envoy timeout", 504, "upstream request timeout", F.SERVER),
    at("mine", "cloudflare 521", 521, page("x | 521: Web server is down"), F.SERVER),
    at("mine", "cloudflare 530", 530, "error code: 1033", F.SERVER),
    at("mine", "proxy password", 407, page("407 Proxy Authentication Required"), F.CONNECT),
    at("mine", "moved", 308, "", F.BAD_RESPONSE),
    at("mine", "nothing said", 400, "", F.BAD_REQUEST),
    at("mine", "payment", 402, "", F.QUOTA),
    at("mine", "gone", 410, "", F.MODEL_MISSING),
    at("mine", "legal", 451, "", F.REGION),
    at("mine", "long address", 414, "", F.TOO_LARGE),
    at("mine", "wrong type", 415, {"detail": "Unsupported Media Type"}, F.BAD_REQUEST),
    at("mine", "never seen", 418, {"oops": True}, F.UNKNOWN),
    at("mine", "early", 425, "", F.SERVER),
]


@pytest.mark.parametrize("case", LOOKALIKES, ids=lambda case: f"{case.provider}: {case.name}")
def test_words_that_resemble_another_class_do_not_mislead(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", PROXIES, ids=lambda case: case.name)
def test_an_answer_of_a_proxy_is_judged_by_its_status(case: Case) -> None:
    check(case)
