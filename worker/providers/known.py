"""What is known about providers and families of models: the names of parameters, what they refuse, sizes, thinking.

Sources: the providers' API references, model overviews and migration guides. Adapters look facts up here; what a name
does not reveal is assumed to be as in the newest generation, because an alias follows the newest model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.worker.providers.base import CannotExpress
from understudy.worker.providers.parameters import Parameters, ToolChoice

# Providers that speak OpenAI's protocol


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a provider's use of OpenAI's protocol differs from what most have in common.

    `reasoning` is the field in which an assistant message's reasoning is accepted, or None.
    """

    developer_role: bool = False
    both_token_limits: bool = False  # accepts max_completion_tokens as well as max_tokens
    reasoning: str | None = None
    signed_reasoning: bool = False  # accepts `reasoning_details`
    thinking_parts: bool = False  # content may be a list with thinking parts
    cannot: frozenset[str] = frozenset()  # parameters that change the meaning and are rejected or ignored
    refuses: frozenset[str] = frozenset()  # advisory parameters that would cause a 400
    renames: Mapping[str, str] = field(default_factory=dict)  # OpenAI's name of a parameter to theirs
    names: bool = True  # messages may have a name
    keeps_to_format: bool = False  # its own guarantee about `response_format` is sufficient


PLAIN = Dialect()
DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(developer_role=True, both_token_limits=True, keeps_to_format=True),
    "azure": Dialect(developer_role=True, both_token_limits=True, keeps_to_format=True),
    "openrouter": Dialect(developer_role=True, both_token_limits=True, reasoning="reasoning", signed_reasoning=True),
    "groq": Dialect(
        both_token_limits=True,
        reasoning="reasoning",
        cannot=frozenset({"n", "logprobs", "logit_bias"}),
        refuses=frozenset({"store", "metadata"}),
        names=False,
    ),
    "mistral": Dialect(
        thinking_parts=True,
        cannot=frozenset({"logprobs", "logit_bias"}),
        refuses=frozenset({"store", "user", "service_tier"}),
        renames={"seed": "random_seed", "dimensions": "output_dimension"},
        names=False,
    ),
    "deepseek": Dialect(reasoning="reasoning_content", cannot=frozenset({"n", "json_schema"})),
    "xai": Dialect(both_token_limits=True),
    "cerebras": Dialect(both_token_limits=True, reasoning="reasoning", cannot=frozenset({"logit_bias"})),
    "perplexity": Dialect(cannot=frozenset({"n", "logprobs", "tools"})),
    "fireworks": Dialect(reasoning="reasoning_content"),
    "vllm": Dialect(both_token_limits=True, reasoning="reasoning_content"),
    "ollama": Dialect(reasoning="reasoning", cannot=frozenset({"n"})),
    "lmstudio": Dialect(cannot=frozenset({"n"})),
}
"""By the name of the provider's preset."""


def dialect_of(preset: str) -> Dialect:
    """An unknown name gets the plain dialect, which assumes as little as possible."""
    return DIALECTS.get(preset, PLAIN)


WANTS_COMPLETION_TOKENS = re.compile(r"^(?:openai/)?(?:ft:)?(?:o\d|gpt-(?:[5-9]|\d\d))")
"""OpenAI's reasoning models reject `max_tokens` with a 400 that names `max_completion_tokens`."""


# Claude, wherever it is served (Anthropic's API, Bedrock)

_CLAUDE_VERSION = re.compile(r"claude(?:-[a-z]+)?-v?(\d{1,2})(?:[-.:](\d{1,2}))?(?!\d)")
_CLAUDE_OUTPUT = (((4, 6), 128_000), ((3, 7), 64_000), ((3, 5), 8_192), ((0, 0), 4_096))
"""(from this version on, maximum output tokens). Newest first."""

_CLAUDE_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}


class Claude:
    """A model of the Claude family, by its name at any provider."""

    def __init__(self, model: str) -> None:
        self.model = model
        found = _CLAUDE_VERSION.search(model)
        self.version = (int(found[1]), int(found[2] or 0)) if found else (99, 0)
        """(4, 5) of `us.anthropic.claude-sonnet-4-5-20250929-v1:0`."""

    @property
    def most_output(self) -> int:
        if "opus" in self.model and (4, 0) <= self.version <= (4, 1):
            return 32_000
        return next(tokens for since, tokens in _CLAUDE_OUTPUT if self.version >= since)

    @property
    def has_schema_output(self) -> bool:
        """Whether it supports an output schema and strict tools; older ones are made to answer through a forced
        tool."""
        return self.version >= (4, 5)

    @property
    def refuses_forced_tools(self) -> bool:
        """Models that always think respond 400 to a `tool_choice` that forces a call."""
        return self.version >= (5, 1)

    @property
    def has_effort(self) -> bool:
        """`output_config.effort`: Opus since 4.5, the others since 4.6."""
        return self.version >= ((4, 5) if "opus" in self.model else (4, 6))

    def effort(self, wanted: Any) -> str | None:
        """OpenAI's value in Claude's terms; None for "none", which is Claude's default."""
        if wanted == "xhigh":
            return "xhigh" if self.version >= (4, 7) else "high"
        return _CLAUDE_EFFORTS.get(str(wanted))

    def check_tool_choice(self, choice: ToolChoice) -> None:
        if choice.mode in ("required", "named") and self.refuses_forced_tools:
            raise CannotExpress(f"tool_choice forces a call, which {self.model} rejects")

    def sampling(self, parameters: Parameters, *, thinking: bool = False) -> dict[str, float | None]:
        """`temperature` and `top_p` as far as this model supports them; the rest is dropped.

        Since 4.7 sampling parameters are rejected; since 4.1 the two exclude each other; thinking fixes the
        temperature.
        """
        if self.version >= (4, 7) or thinking:
            parameters.drop("temperature", "top_p", "top_k")
        if self.version >= (4, 1) and parameters.has("temperature"):
            parameters.drop("top_p")
        temperature = parameters.number("temperature")
        if temperature is not None:
            temperature = min(temperature, 1.0)  # OpenAI's scale ends at 2, Claude's at 1
        return {"temperature": temperature, "top_p": parameters.number("top_p")}

    def stop(self, parameters: Parameters) -> list[str]:
        sequences = parameters.stop()
        if not all(map(str.strip, sequences)):
            raise CannotExpress("stop has a sequence of white space only, which Claude rejects")
        return sequences


def claude_named(model: str) -> Claude | None:
    """The Claude that a provider of many models serves under this name, if it is one."""
    return Claude(model) if "claude" in model else None


# Gemini (the Gemini API, Vertex AI)

_THINKING_BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576}
"""`reasoning_effort` on Gemini 2.5, as translated by Google's own OpenAI interface."""


class Gemini:
    """A model of the Gemini family."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.is_since_3 = not any(f"gemini-{generation}" in model for generation in ("1", "2"))
        self.thinks = self.is_since_3 or "gemini-2.5" in model
        """Models that think respond 400 to penalties."""

    @property
    def most_output(self) -> int:
        return 65_536 if self.thinks else 8_192

    def thinking(self, effort: str) -> dict[str, Any]:
        """OpenAI's `reasoning_effort` in this model's terms. Raises CannotExpress."""
        if effort not in _THINKING_BUDGETS:
            raise CannotExpress("reasoning_effort must be none, minimal, low, medium or high")
        if not self.is_since_3:
            least = 128 if "pro" in self.model else 0  # 2.5 Pro cannot disable thinking
            return {"thinkingBudget": max(_THINKING_BUDGETS[effort], least)}
        if effort in ("none", "minimal"):
            return {"thinkingLevel": "minimal" if "flash" in self.model else "low"}
        return {"thinkingLevel": "high" if effort == "xhigh" else effort}
