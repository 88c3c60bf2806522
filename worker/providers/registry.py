"""The supported wire protocols, by name. A provider's `kind` names one of them."""

from collections.abc import Callable, Mapping

from understudy.models.routing.chain import CHAT, EMBEDDINGS
from understudy.models.routing.chain import Endpoint as Surface
from understudy.worker.providers.anthropic import AnthropicAdapter
from understudy.worker.providers.base import Adapter, Answer, Call, Endpoint, WireRequest
from understudy.worker.providers.bedrock import BedrockAdapter
from understudy.worker.providers.embeddings import NoEmbeddings
from understudy.worker.providers.gemini.embeddings import GeminiEmbeddings
from understudy.worker.providers.gemini.requests import GeminiAdapter
from understudy.worker.providers.openai.embeddings import OpenAIEmbeddings
from understudy.worker.providers.openai.requests import OpenAIAdapter

ADAPTERS: Mapping[str, Mapping[Surface, Callable[[], Adapter]]] = {
    "openai": {CHAT: OpenAIAdapter, EMBEDDINGS: OpenAIEmbeddings},
    "anthropic": {CHAT: AnthropicAdapter},
    "gemini": {CHAT: GeminiAdapter, EMBEDDINGS: GeminiEmbeddings},
    "bedrock": {CHAT: BedrockAdapter},
}
"""By protocol and endpoint."""


class _ByEndpoint:
    """Passes each call to the adapter of its endpoint."""

    def __init__(self, protocol: str, adapters: Mapping[Surface, Adapter]) -> None:
        self.protocol = protocol
        self._adapters = {EMBEDDINGS: NoEmbeddings(protocol), **adapters}

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        return self._adapters[call.endpoint].request(call, endpoint)

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        return self._adapters[call.endpoint].answer(call, status, headers, content)


def adapter_for(protocol: str) -> Adapter:
    """The adapter of a protocol. Raises ValueError for an unknown name, listing the known ones."""
    if protocol not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise ValueError(f"There is no provider protocol {protocol!r}; set `kind` to one of {known}.")
    return _ByEndpoint(protocol, {surface: make() for surface, make in ADAPTERS[protocol].items()})
