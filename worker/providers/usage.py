"""Token counts of answers in every protocol, normalized: input includes what the cache gave and took, output includes
reasoning."""

from collections.abc import Mapping
from typing import Any

from understudy.worker.providers.base import Usage
from understudy.worker.providers.completion import count, mapping

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


def openai_usage(raw: Any, model: str) -> Usage:
    """The many spellings of the OpenAI protocol; zeros if the provider reports none."""
    if not isinstance(raw, dict):
        return Usage()
    prompt = _most(raw, "prompt_tokens", "input_tokens")
    completion = _most(raw, "completion_tokens", "output_tokens")
    cached = _anywhere(raw, PROMPT_DETAILS, CACHED)
    cache_writes = _anywhere(raw, PROMPT_DETAILS, CACHE_WRITES)
    reasoning = _anywhere(raw, COMPLETION_DETAILS, REASONING)
    if cached > prompt:
        prompt += cached + cache_writes
    beyond = count(raw.get("total_tokens")) - prompt - completion
    if beyond > 0 and beyond == reasoning:
        completion += reasoning  # xAI counts reasoning apart from the completion, though it is billed as output
    elif beyond > 0 and reasoning == 0 and "gemini" in model:
        # Google's own OpenAI interface includes thoughts in the total only.
        completion, reasoning = completion + beyond, beyond
    return Usage(prompt, completion, cached, cache_writes, reasoning)


def anthropic_usage(raw: dict[str, Any]) -> Usage:
    """Anthropic's input count excludes tokens read from and written to the cache."""
    read = count(raw.get("cache_read_input_tokens"))
    written = count(raw.get("cache_creation_input_tokens"))
    written = written or sum(map(count, mapping(raw.get("cache_creation")).values()))
    reasoning = count(mapping(raw.get("output_tokens_details")).get("thinking_tokens"))
    prompt = count(raw.get("input_tokens")) + read + written
    return Usage(prompt, count(raw.get("output_tokens")), read, written, reasoning)


def bedrock_usage(raw: dict[str, Any]) -> Usage:
    """So does Converse's, whose answers do not count reasoning."""
    read = _most(raw, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _most(raw, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    return Usage(count(raw.get("inputTokens")) + read + written, count(raw.get("outputTokens")), read, written)


def gemini_usage(raw: dict[str, Any]) -> Usage:
    """Gemini's prompt count includes cached tokens and excludes what its own tools read; candidates exclude
    thoughts."""
    thoughts = count(raw.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=count(raw.get("promptTokenCount")) + count(raw.get("toolUsePromptTokenCount")),
        output_tokens=count(raw.get("candidatesTokenCount")) + thoughts,
        cached_tokens=count(raw.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )


def usage_object(usage: Usage, raw: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """OpenAI's `usage`, with a total that adds up. Further details of a provider that speaks OpenAI's protocol, in
    `raw`, are kept; the cache's writes of the others are added."""
    writes = {"cache_write_tokens": usage.cache_write_tokens} if raw is None else {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {**_details(raw, PROMPT_DETAILS), "cached_tokens": usage.cached_tokens, **writes},
        "completion_tokens_details": {
            **_details(raw, COMPLETION_DETAILS),
            "reasoning_tokens": usage.reasoning_tokens,
        },
    }


def _details(raw: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    return next(filter(None, (mapping((raw or {}).get(name)) for name in names)), {})


def _anywhere(raw: Mapping[str, Any], details: tuple[str, ...], names: tuple[str, ...]) -> int:
    """The largest of a count's spellings: a provider that sends several leaves the others at 0."""
    return max(_most(place, *names) for place in (raw, *(mapping(raw.get(name)) for name in details)))


def _most(place: Mapping[str, Any], *names: str) -> int:
    return max(count(place.get(name)) for name in names)
