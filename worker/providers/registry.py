"""The supported wire protocols, by name. A provider's `kind` names one of them."""

from collections.abc import Mapping

from understudy.models.routing.chain import CHAT, EMBEDDINGS
from understudy.models.routing.chain import Endpoint as Surface
from understudy.worker.providers.anthropic import AnthropicAdapter
from understudy.worker.providers.base import Adapter, Answer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.bedrock import BedrockAdapter
from understudy.worker.providers.embeddings import GeminiEmbeddings, OpenAIEmbeddings
from understudy.worker.providers.gemini import GeminiAdapter
from understudy.worker.providers.openai import OpenAIAdapter

ADAPTERS: Mapping[str, Mapping[Surface, Adapter]] = {
    "openai": {CHAT: OpenAIAdapter(), EMBEDDINGS: OpenAIEmbeddings()},
    "anthropic": {CHAT: AnthropicAdapter()},
    "gemini": {CHAT: GeminiAdapter(), EMBEDDINGS: GeminiEmbeddings()},
    "bedrock": {CHAT: BedrockAdapter()},
}
"""By protocol and endpoint."""


class _ByEndpoint:
    """Passes each call to the adapter of its endpoint."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        return self._adapter(call).request(call, endpoint)

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        return self._adapter(call).answer(call, status, headers, content)

    def _adapter(self, call: Call) -> Adapter:
        adapter = ADAPTERS[self.protocol].get(call.endpoint)
        if adapter is None:
            raise CannotExpress(f"the {self.protocol} protocol has no embeddings")
        return adapter


def adapter_for(protocol: str) -> Adapter:
    """The adapter of a protocol. Raises ValueError for an unknown name, listing the known ones."""
    if protocol not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise ValueError(f"There is no provider protocol {protocol!r}; set `kind` to one of {known}.")
    return _ByEndpoint(protocol)
