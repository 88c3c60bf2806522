"""Token counts of OpenAI-protocol answers: many spellings, normalized."""

from collections.abc import Mapping
from typing import Any

from understudy.worker.providers.base import Call, Usage
from understudy.worker.providers.completion import count

PROMPT_DETAILS = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details")
COMPLETION_DETAILS = ("completion_tokens_details", "completion_token_details", "output_tokens_details")
CACHED = (
    "cached_tokens",
    "num_cached_tokens",
    "prompt_cache_hit_tokens",
    "cache_read_input_tokens",
    "cache_read_tokens",
)
CACHE_WRITES = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
REASONING = ("reasoning_tokens", "thinking_tokens")


def read_usage(raw: Any, call: Call) -> Usage:
    """The normalized counts; zeros if the provider reports none."""
    if not isinstance(raw, dict):
        return Usage()
    prompt = _count(raw, "prompt_tokens", "input_tokens")
    completion = _count(raw, "completion_tokens", "output_tokens")
    cached = _anywhere(raw, PROMPT_DETAILS, CACHED)
    cache_writes = _anywhere(raw, PROMPT_DETAILS, CACHE_WRITES)
    reasoning = _anywhere(raw, COMPLETION_DETAILS, REASONING)
    if cached > prompt:
        prompt += cached + cache_writes
    beyond = _count(raw, "total_tokens") - prompt - completion
    if beyond > 0 and beyond == reasoning:
        completion += reasoning  # xAI counts reasoning apart from the completion, though it is billed as output
    elif beyond > 0 and reasoning == 0 and "gemini" in call.model:
        completion, reasoning = (
            completion + beyond,
            beyond,
        )  # Google's own OpenAI interface includes thoughts in the total only
    return Usage(prompt, completion, cached, cache_writes, reasoning)


def usage_object(usage: Usage, raw: Any) -> dict[str, Any]:
    """OpenAI's `usage`, with a total that adds up. Further details of the provider are kept."""
    details = raw if isinstance(raw, dict) else {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {**_details(details, PROMPT_DETAILS), "cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            **_details(details, COMPLETION_DETAILS),
            "reasoning_tokens": usage.reasoning_tokens,
        },
    }


def _details(raw: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    found = (raw[name] for name in names if isinstance(raw.get(name), dict))
    return next(found, {})


def _anywhere(raw: Mapping[str, Any], details: tuple[str, ...], names: tuple[str, ...]) -> int:
    """The largest of a count's spellings: a provider that sends several leaves the others at 0."""
    most = _count(raw, *names)
    for name in details:
        place = raw.get(name)
        if isinstance(place, dict):
            most = max(most, _count(place, *names))
    return most


def _count(place: Mapping[str, Any], *names: str) -> int:
    most = 0
    for name in names:
        most = max(most, count(place.get(name)))
    return most
