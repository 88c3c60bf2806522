"""Providers known out of the box: base URL, protocol and key variable.

For the OpenAI protocol a base URL includes the version (`https://api.openai.com/v1`); adapters append
`/chat/completions`. Anthropic, Gemini and Bedrock adapters append the version themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["openai", "anthropic", "gemini", "bedrock"]
"""The wire protocols."""

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Preset:
    """`base_url` None: the configuration must provide one. `families` are prefixes of this provider's model names,
    so that a bare `claude-sonnet-4-5` is routed to it."""

    kind: Kind
    base_url: str | None
    env: str | None = None
    needs_key: bool = True
    families: tuple[str, ...] = ()
    note: str = ""
    max_tokens_count: Literal["held", "kept"] | None = None
    """Whether a request's `max_tokens` counts against tokens per minute on arrival: the unused part is refunded when
    the call ends ("held"), or not ("kept"). None: only actual usage counts, or it is undocumented."""


def _openai(
    base_url: str | None,
    env: str | None,
    *families: str,
    note: str = "",
    max_tokens_count: Literal["held", "kept"] | None = None,
) -> Preset:
    return Preset("openai", base_url, env, families=families, note=note, max_tokens_count=max_tokens_count)


def _local(base_url: str, note: str) -> Preset:
    return Preset("openai", base_url, needs_key=False, note=note)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "openai": _openai("https://api.openai.com/v1", "OPENAI_API_KEY", "gpt-", "chatgpt-", "o1", "o3", "o4"),
        "anthropic": Preset(
            "anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY", families=("claude-",), note="Messages API"
        ),
        "gemini": Preset(
            "gemini",
            "https://generativelanguage.googleapis.com",
            "GEMINI_API_KEY",
            families=("gemini-", "gemma-", "learnlm-"),
            note="Gemini API, not Vertex AI",
        ),
        "openrouter": _openai("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        "groq": _openai("https://api.groq.com/openai/v1", "GROQ_API_KEY", max_tokens_count="held"),
        "mistral": _openai(
            "https://api.mistral.ai/v1",
            "MISTRAL_API_KEY",
            *("mistral-", "ministral-", "magistral-", "codestral-", "devstral-", "pixtral-", "open-mistral-"),
        ),
        "together": _openai("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
        "deepseek": _openai("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek-"),
        "xai": _openai("https://api.x.ai/v1", "XAI_API_KEY", "grok-"),
        "fireworks": _openai(
            "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "accounts/fireworks/models/"
        ),
        "cerebras": _openai("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", max_tokens_count="held"),
        "perplexity": _openai("https://api.perplexity.ai", "PERPLEXITY_API_KEY", "sonar"),
        "bedrock": Preset(
            "bedrock",
            "https://bedrock-runtime.{region}.amazonaws.com",
            "AWS_BEARER_TOKEN_BEDROCK",
            note=f"Converse API with a Bedrock API key; options.region, else AWS_REGION, else {DEFAULT_REGION}",
            max_tokens_count="held",
        ),
        "azure": _openai(
            None,
            "AZURE_OPENAI_API_KEY",
            note='base_url = "https://NAME.openai.azure.com/openai/v1"; the model name is the name of your deployment',
            max_tokens_count="kept",
        ),
        "ollama": _local("http://127.0.0.1:11434/v1", "on this machine"),
        "vllm": _local("http://127.0.0.1:8000/v1", "on this machine"),
        "lmstudio": _local("http://127.0.0.1:1234/v1", "on this machine"),
    }
)

AZURE_ENDPOINT = "AZURE_OPENAI_ENDPOINT"
"""With this variable and AZURE_OPENAI_API_KEY set, Azure needs no configuration either."""


def family_of(model: str) -> str | None:
    """The preset whose vendor a bare model name belongs to, judged by its prefix, or None."""
    for name, preset in PRESETS.items():
        if model.lower().startswith(preset.families or ("\0",)):
            return name
    return None
