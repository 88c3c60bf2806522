"""What refusals from self-hosted servers, gateways and rarer providers mean."""

import pytest
from failure_cases import Case, at, check, error

from understudy.models.failure import FailureClass, Scope

F = FailureClass
S = Scope
INVALID = "invalid_request_error"

SELF_HOSTED = [
    at("ollama", "pull", 404, error('model "m" not found, try pulling it first', "api_error"), F.MODEL_MISSING),
    at("ollama", "tools", 400, error("m does not support tools", "api_error"), F.BAD_REQUEST),
    at(
        "ollama",
        "queue",
        503,
        error("server busy, please try again.  maximum pending requests exceeded", "api_error"),
        F.OVERLOADED,
    ),
    at(
        "ollama",
        "memory",
        500,
        error("model requires more system memory (9 GiB) than is available", "api_error"),
        F.SERVER,
    ),
    at(
        "vllm",
        "negative",
        400,
        {
            "object": "error",
            "message": "max_tokens must be at least 1, got -186.",
            "type": "BadRequestError",
            "code": 400,
        },
        F.CONTEXT_LENGTH,
    ),
    at(
        "vllm",
        "context",
        400,
        {
            "object": "error",
            "message": "However, you requested 12000 tokens. Please reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "code": 400,
        },
        F.CONTEXT_LENGTH,
    ),
    at(
        "vllm",
        "decoder",
        400,
        {
            "error": {
                "message": "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
                "code": 400,
            }
        },
        F.CONTEXT_LENGTH,
    ),
    at(
        "vllm",
        "no model",
        404,
        {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404},
        F.MODEL_MISSING,
    ),
    at("vllm", "path", 404, {"detail": "Not Found"}, F.MODEL_MISSING),
    at("vllm", "key", 401, {"error": "Unauthorized"}, F.CREDENTIAL),
    at(
        "sglang",
        "context",
        400,
        {"message": "The input (9000 tokens) is longer than the model's context length (8192 tokens)."},
        F.CONTEXT_LENGTH,
    ),
    at(
        "llamacpp",
        "context",
        400,
        error("the request exceeds the available context size", "exceed_context_size_error", 400),
        F.CONTEXT_LENGTH,
    ),
    at("llamacpp", "loading", 503, error("Loading model", "unavailable_error", 503), F.OVERLOADED),
    at("lmstudio", "nothing loaded", 400, error("No models loaded. Please load a model.", INVALID), F.MODEL_MISSING),
    at(
        "lmstudio",
        "cannot load",
        400,
        {"error": 'Failed to load model "m". Error: Error loading model.'},
        F.MODEL_MISSING,
    ),
    at(
        "minimax",
        "key",
        401,
        {"type": "error", "error": {"type": "authorized_error", "message": "login fail (1004)"}},
        F.CREDENTIAL,
    ),
    at(
        "moonshot",
        "suspended",
        429,
        error("Your account is suspended, please check your plan and billing details", "exceeded_current_quota_error"),
        F.QUOTA,
    ),
    at("moonshot", "engine", 429, error("The engine is currently overloaded", "engine_overloaded_error"), F.OVERLOADED),
    at(
        "moonshot",
        "high risk",
        400,
        error("The request was rejected because it was considered high risk", "content_filter"),
        F.CONTENT_FILTER,
    ),
    at(
        "alibaba",
        "arrears",
        400,
        error("Access denied, please make sure your account is in good standing.", "Arrearage", "Arrearage"),
        F.QUOTA,
    ),
    at(
        "alibaba",
        "inspection",
        400,
        error("Input data may contain inappropriate content.", "data_inspection_failed"),
        F.CONTENT_FILTER,
    ),
    at(
        "huggingface",
        "included",
        402,
        {"error": "You have exceeded your monthly included credits for Inference Providers."},
        F.QUOTA,
    ),
    at(
        "huggingface",
        "loading",
        503,
        {"error": "Model m is currently loading", "estimated_time": 20.0},
        F.OVERLOADED,
        20.0,
    ),
    at(
        "github",
        "daily",
        429,
        error(
            "Rate limit of 50 per 86400s exceeded. Please wait 68361 seconds before retrying.", None, "RateLimitReached"
        ),
        F.RATE_LIMIT,
        68361.0,
    ),
    at(
        "litellm",
        "budget",
        400,
        error("Budget has been exceeded! Current cost: 10.1", "budget_exceeded", "400"),
        F.QUOTA,
    ),
    at("litellm", "status inside", 500, error("The upstream said no.", "x", "429"), F.RATE_LIMIT),
]


@pytest.mark.parametrize("case", SELF_HOSTED, ids=lambda case: f"{case.provider}: {case.name}")
def test_a_refusal_of_a_server_of_ones_own_is_understood(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", SELF_HOSTED, ids=lambda case: f"{case.provider}: {case.name}")
def test_a_server_is_understood_under_any_name(case: Case) -> None:
    check(case._replace(provider="my-own-name"))
