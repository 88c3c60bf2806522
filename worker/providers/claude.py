"""Differences between generations of Claude, wherever they are served (Anthropic's API, Bedrock).

Source: Anthropic's model overview and migration guides.
"""

import re
from typing import Any

from understudy.worker.providers.base import CannotExpress
from understudy.worker.providers.parameters import Parameters, ToolChoice

_VERSION = re.compile(r"claude(?:-[a-z]+)?-v?(\d{1,2})(?:[-.:](\d{1,2}))?(?!\d)")

_MOST_OUTPUT = (((4, 6), 128_000), ((3, 7), 64_000), ((3, 5), 8_192), ((0, 0), 4_096))
"""(from this version on, maximum output tokens). Newest first."""

NEWEST = (99, 0)
"""The version of a name without one: an alias follows the newest model."""


def version_of(model: str) -> tuple[int, int]:
    """(4, 5) of `us.anthropic.claude-sonnet-4-5-20250929-v1:0`."""
    match = _VERSION.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else NEWEST


def is_claude(model: str) -> bool:
    return "claude" in model


def most_output(model: str) -> int:
    version = version_of(model)
    if "opus" in model and (4, 0) <= version <= (4, 1):
        return 32_000
    return next(tokens for since, tokens in _MOST_OUTPUT if version >= since)


def has_schema_output(model: str) -> bool:
    """Whether it supports an output schema and strict tools; older ones are made to answer through a forced tool."""
    return version_of(model) >= (4, 5)


def refuses_forced_tools(model: str) -> bool:
    """Models that always think respond 400 to a `tool_choice` that forces a call."""
    return version_of(model) >= (5, 1)


def check_tool_choice(model: str, choice: ToolChoice) -> None:
    if choice.mode in ("required", "named") and refuses_forced_tools(model):
        raise CannotExpress(f"tool_choice forces a call, which {model} rejects")


def has_effort(model: str) -> bool:
    """`output_config.effort`: Opus since 4.5, the others since 4.6."""
    return version_of(model) >= ((4, 5) if "opus" in model else (4, 6))


def effort(model: str, wanted: Any) -> str | None:
    """OpenAI's value in Claude's terms; None for "none", which is Claude's default."""
    if wanted == "xhigh":
        return "xhigh" if version_of(model) >= (4, 7) else "high"
    return {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}.get(str(wanted))


def sampling(model: str, parameters: Parameters, *, thinking: bool = False) -> dict[str, Any]:
    """`temperature` and `top_p` as far as this model supports them; the rest is dropped.

    Since 4.7 sampling parameters are rejected; since 4.1 the two exclude each other; thinking fixes the temperature.
    """
    if version_of(model) >= (4, 7) or thinking:
        parameters.drop("temperature", "top_p", "top_k")
    if version_of(model) >= (4, 1) and parameters.has("temperature"):
        parameters.drop("top_p")
    values = {"temperature": parameters.number("temperature"), "top_p": parameters.number("top_p")}
    if values["temperature"] is not None:
        values["temperature"] = min(values["temperature"], 1.0)  # OpenAI's scale ends at 2, Claude's at 1
    return {name: value for name, value in values.items() if value is not None}


def check_stop(sequences: list[str]) -> list[str]:
    if any(not sequence.strip() for sequence in sequences):
        raise CannotExpress("stop has a sequence of white space only, which Claude rejects")
    return sequences
