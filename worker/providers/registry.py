"""The wire protocols we speak, by name. A provider's `kind` names one of them."""

from importlib import import_module
from typing import cast

from worker.providers.base import Adapter

ADAPTERS = {
    "openai": "OpenAIAdapter",
    "anthropic": "AnthropicAdapter",
    "gemini": "GeminiAdapter",
    "bedrock": "BedrockAdapter",
}


def adapter_for(protocol: str) -> Adapter:
    """The adapter of a protocol. An unknown name is a ValueError that lists the known ones."""
    if protocol not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise ValueError(f"There is no provider protocol {protocol!r}; set `kind` to one of {known}.")
    module = import_module(f"worker.providers.{protocol}")
    return cast(Adapter, getattr(module, ADAPTERS[protocol])())
