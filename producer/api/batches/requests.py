"""The request that creates a batch: OpenAI's fields and ours, validated before anything is written."""

from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from understudy.models.config.settings import Settings
from understudy.models.errors import suggestion
from understudy.models.request.endpoints import ENDPOINTS, endpoint_named
from understudy.models.request.wire import NOT_FOUND, RequestError, write_json
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.request_options import ROUTE_WORDS, RouteOptions
from understudy.models.routing.route import Router
from understudy.models.state import Priority, PriorityWord
from understudy.models.tenants import LEAST_WEIGHT, MOST_WEIGHT, USUAL_WEIGHT
from understudy.producer import request_fields as words
from understudy.producer.api.bodies import checked
from understudy.producer.number_format import seconds_of

SHORTEST_S = 60.0
MAX_URL_CHARS = 2_048
NUL = rb"\u0000"


class OutputExpiry(BaseModel):
    """When the output and error files are deleted, counted from their creation at the end of the batch."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    anchor: Annotated[str, Field(pattern="^created_at$")] = "created_at"
    seconds: int = Field(ge=3_600, le=2_592_000)
    """An hour to 30 days."""


class BatchRequest(RouteOptions):
    """A request to create a batch. OpenAI's fields are `input_file_id`, `endpoint`, `completion_window`, `metadata` and
    `output_expires_after`; pass the others in `extra_body` of the OpenAI SDK."""

    input_file_id: str = Field(min_length=1, max_length=200)
    """The id of an uploaded file of lines."""
    endpoint: str
    """`/v1/chat/completions` or `/v1/embeddings`; the `url` of each line must be the same."""
    completion_window: str
    """Time after which unfinished lines expire: `24h`, or any time from `1m` to `7d`."""
    metadata: dict[str, str] | None = None
    """Up to 16 key-value pairs; keys up to 64 characters, values up to 512."""
    output_expires_after: OutputExpiry | None = None
    priority: PriorityWord = "bulk"
    """Orders the work of one tenant."""
    weight: float = Field(default=USUAL_WEIGHT, ge=LEAST_WEIGHT, le=MOST_WEIGHT, allow_inf_nan=False)
    """Share of capacity relative to other batches of the same tenant and priority, 0.01 to 100."""
    webhook_url: str | None = Field(default=None, max_length=MAX_URL_CHARS)
    """URL that receives a signed POST when the batch ends."""
    budget_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """US dollars: the batch pauses before its calls cost more, until it is resumed."""

    @property
    def window_s(self) -> float:
        return window_s(self.completion_window)

    @property
    def queue(self) -> Priority:
        return Priority.named(self.priority)

    @property
    def route(self) -> str:
        """The given routing options as JSON."""
        return self.model_dump_json(include=set(ROUTE_WORDS), exclude_unset=True)


def parse_request(document: dict[str, Any], settings: Settings, rules: Rules = NO_RULES) -> BatchRequest:
    """`rules`: those of the tenant. Raises RequestError with the first error."""
    for word in document:
        if word not in BatchRequest.model_fields:
            near = suggestion(word, BatchRequest.model_fields)
            raise RequestError(f"unknown field '{word[:80]}'{near}", word[:80], "unknown_parameter")
    request = checked(BatchRequest, document)
    endpoint = endpoint_named(request.endpoint)
    if endpoint is None:
        raise RequestError(
            f"batches for '{request.endpoint[:80]}' are not supported; supported: {' and '.join(ENDPOINTS)}",
            "endpoint",
            "unsupported_endpoint",
        )
    request = request.model_copy(update={"endpoint": endpoint})
    window_s(request.completion_window)
    words.metadata(request.metadata)
    words.receiver(request.webhook_url, "webhook_url", settings)
    _check_route(request, settings, rules.with_budget(request.budget_usd))
    return request


def window_s(text: str) -> float:
    """A completion window in seconds. Raises RequestError."""
    window = seconds_of(text) if text[-1:].isalpha() else None
    if window is None or not SHORTEST_S <= window <= words.LONGEST_DEADLINE_S:
        raise RequestError(
            "'completion_window' must be a time from 1m to 7d, such as 24h or 90m", "completion_window", "invalid_value"
        )
    return window


def canonical(document: dict[str, Any]) -> bytes:
    """Identical bytes for equivalent requests. Raises RequestError for content that cannot be stored."""
    text = write_json(document, in_order=True)
    if NUL in text.replace(rb"\\", b""):
        raise RequestError("the body contains a NUL character, which cannot be stored", code="invalid_value")
    return text


def _check_route(request: BatchRequest, settings: Settings, rules: Rules) -> None:
    """Reject options that would make every line fail."""
    if request.model_fields_set.isdisjoint(ROUTE_WORDS):
        return
    route = RouteOptions().merged(request)
    if route.model is None and route.chain is None:
        if not settings.providers:
            return  # each line reports it
        # whether rules can be met depends on the lines
        route = route.model_copy(update={"model": f"{min(settings.providers)}/of-a-line", "require": {}, "forbid": {}})
        rules = NO_RULES
    try:
        Router(settings, route, endpoint=cast(Endpoint, request.endpoint), rules=rules).resolve({})
    except RequestError as error:
        if error.code != NOT_FOUND:
            raise
        raise RequestError(error.message, error.param) from None  # 404 is for the input file
