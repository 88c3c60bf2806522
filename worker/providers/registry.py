"""The wire protocols we speak, by name. A provider's `kind` names one of them."""

from collections.abc import Callable, Mapping

from worker.providers.anthropic import AnthropicAdapter
from worker.providers.base import Adapter
from worker.providers.bedrock import BedrockAdapter
from worker.providers.gemini import GeminiAdapter
from worker.providers.openai import OpenAIAdapter

ADAPTERS: Mapping[str, Callable[[], Adapter]] = {
    "openai": OpenAIAdapter,
    "anthropic": AnthropicAdapter,
    "gemini": GeminiAdapter,
    "bedrock": BedrockAdapter,
}


def adapter_for(protocol: str) -> Adapter:
    """The adapter of a protocol. An unknown name is a ValueError that lists the known ones."""
    if protocol not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise ValueError(f"There is no provider protocol {protocol!r}; set `kind` to one of {known}.")
    return ADAPTERS[protocol]()
