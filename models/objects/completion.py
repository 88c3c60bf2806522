"""Answers to chat completions and embeddings: OpenAI's objects, whichever provider answered, with one more field."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from understudy.models.objects.attempt import AttemptSummary
from understudy.models.objects.shapes import described


@described
class ExtraFields(TypedDict):
    """How the answer came about."""

    provider: str
    model_requested: str
    """The first step that was allowed to serve the request, as `provider/model`."""
    model_used: str
    """As the provider named it."""
    key: str
    """Name of the credential."""
    latency_ms: int
    fallback_index: int
    """0: the primary answered; 1: the step after it, and so on."""
    cost_usd: float | None
    """Cost of the call that answered; null if no price is known."""
    attempts: list[AttemptSummary]
    """The job's calls, at most the latest 50."""
    raw_usage: Any
    """The usage as the provider wrote it."""
    raw_finish_reason: Any
    dropped_params: NotRequired[Any]
    """Parameters that were left out, because the provider does not support them."""
    skipped_steps: NotRequired[dict[str, str]]
    """Steps that were not asked, with the reason."""


@described
class ChatMessage(TypedDict):
    role: str
    content: str | None
    refusal: NotRequired[str | None]
    tool_calls: NotRequired[list[dict[str, Any]]]


@described
class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    finish_reason: str | None
    logprobs: NotRequired[dict[str, Any] | None]


@described
class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: NotRequired[int]
    total_tokens: int
    prompt_tokens_details: NotRequired[dict[str, Any]]
    completion_tokens_details: NotRequired[dict[str, Any]]


@described
class ChatCompletion(TypedDict):
    """OpenAI's chat completion. Some providers add more fields."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None
    extra_fields: ExtraFields


@described
class Embedding(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Text with `encoding_format` `base64`."""


@described
class Embeddings(TypedDict):
    """OpenAI's list of embeddings."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage | None
    extra_fields: ExtraFields
