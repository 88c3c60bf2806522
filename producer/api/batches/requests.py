"""What creates a batch: OpenAI's words and ours, checked before anything is written."""

from typing import Annotated, Any, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field

from understudy.models.config.catalog import suggestion
from understudy.models.config.settings import Settings
from understudy.models.request.endpoints import ENDPOINTS, endpoint_named
from understudy.models.request.wire import ROUTE_WORDS, RequestError
from understudy.models.routing.chain import Acceptance, Endpoint, Order
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.model_names import NOT_FOUND
from understudy.models.routing.options import said_rules
from understudy.models.routing.route import Router
from understudy.models.state import Priority
from understudy.models.weights import LEAST_WEIGHT, MOST_WEIGHT, USUAL_WEIGHT
from understudy.producer import request_fields as words
from understudy.producer.api.bodies import checked
from understudy.producer.durations import seconds_of
from understudy.producer.ingest.batch_filler import route_options

SHORTEST_S, LONGEST_S = 60.0, 7 * 86_400.0
MAX_URL_CHARS = 2_048
NUL = rb"\u0000"


class OutputExpiry(BaseModel):
    """When the output and error files are deleted. OpenAI counts from their creation, which is the batch's end."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    anchor: Annotated[str, Field(pattern="^created_at$")] = "created_at"
    seconds: int = Field(ge=3_600, le=2_592_000)
    """From an hour to 30 days."""


class BatchRequest(BaseModel):
    """OpenAI's request to create a batch. The words after `output_expires_after` are ours; the OpenAI SDK sends them
    in `extra_body`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)

    input_file_id: str = Field(min_length=1, max_length=200)
    """An uploaded file of lines."""
    endpoint: str
    """`/v1/chat/completions` or `/v1/embeddings`; each line must have it as its `url`."""
    completion_window: str
    """What is not done by then expires: `24h`, or any time from `1m` to `7d`."""
    metadata: dict[str, str] | None = None
    """Up to 16 pairs of the caller's own; keys up to 64 characters, values up to 512."""
    output_expires_after: OutputExpiry | None = None
    model: str | None = None
    """For lines that name none."""
    chain: str | None = None
    """A configured chain, in place of the lines' models."""
    fallbacks: list[str | dict[str, Any]] | None = None
    """Models to go on to, for lines that name none themselves."""
    allow_fallbacks: bool | None = None
    """False: only the first model is asked."""
    priority: str = Priority.BULK.queue
    """`interactive`, `normal` or `bulk`."""
    weight: float = Field(default=USUAL_WEIGHT, ge=LEAST_WEIGHT, le=MOST_WEIGHT, allow_inf_nan=False)
    """Turns of this batch for one of another of the same tenant and priority, from 0.01 to 100."""
    webhook_url: str | None = Field(default=None, max_length=MAX_URL_CHARS)
    """Told when the batch ends."""
    patience_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds that a refusing model is waited for before the next is asked."""
    spill: bool | None = None
    """Also go on to the next model while one is merely at its limit."""
    budget_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """US dollars: the batch is paused before its calls cost more, until it is resumed."""
    accept: list[Acceptance] | None = None
    """What an answer must be to count as one; another is a failure, and the next model is asked."""

    max_fallback_share: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Of the lines, this share at most may be answered by another model than the first; the others wait for it."""
    order: Order | None = None
    """Which model is asked first: as written (`chain`), the `cheapest` or the `fastest`."""
    require: dict[str, Any] | None = None
    """Tags that the providers of all lines must have, such as `{"region": ["eu", "ch"], "zdr": true}`."""
    forbid: dict[str, Any] | None = None
    """Tags that they must not have; a provider must say so itself."""

    @property
    def window_s(self) -> float:
        return window_s(self.completion_window)

    @property
    def queue(self) -> Priority:
        return words.priority(self.priority, Priority.BULK)

    @property
    def route(self) -> dict[str, Any]:
        """The words about routing that were said, as `RouteOptions` takes them."""
        return {word: getattr(self, word) for word in ROUTE_WORDS if getattr(self, word) is not None}


def parse_request(document: dict[str, Any], settings: Settings, rules: Rules = NO_RULES) -> BatchRequest:
    """`rules` are the tenant's. Raises RequestError with the first thing that is wrong."""
    for word in document:
        if word not in BatchRequest.model_fields:
            near = suggestion(word, BatchRequest.model_fields)
            raise RequestError(f"unknown field '{word[:80]}'{near}", word[:80], "unknown_parameter")
    request = checked(BatchRequest, document)
    endpoint = endpoint_named(request.endpoint)
    if endpoint is None:
        raise RequestError(
            f"batches for '{request.endpoint[:80]}' are not served; served are {' and '.join(ENDPOINTS)}",
            "endpoint",
            "unsupported_endpoint",
        )
    request = request.model_copy(update={"endpoint": endpoint})
    window_s(request.completion_window)
    words.metadata(request.metadata)
    words.priority(request.priority, Priority.BULK)
    words.receiver(request.webhook_url, "webhook_url", settings)
    _check_route(request, settings, rules.with_budget(request.budget_usd))
    return request


def window_s(text: str) -> float:
    """A completion window in seconds. Raises RequestError."""
    window = seconds_of(text) if text[-1:].isalpha() else None
    if window is None or not SHORTEST_S <= window <= LONGEST_S:
        raise RequestError(
            "'completion_window' must be a time from 1m to 7d, such as 24h or 90m", "completion_window", "invalid_value"
        )
    return window


def canonical(document: dict[str, Any]) -> bytes:
    """The same bytes for requests that say the same. Raises RequestError for what cannot be stored."""
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise RequestError("the body is nested too deep", code="invalid_json") from None
    if NUL in text.replace(rb"\\", b""):
        raise RequestError("the body holds a NUL character, which cannot be stored", code="invalid_value")
    return text


def _check_route(request: BatchRequest, settings: Settings, rules: Rules) -> None:
    """Refuse at once what would make every line fail."""
    route = request.route
    if not route:
        return
    body: dict[str, Any] = {}
    if "model" not in route and "chain" not in route:
        if not settings.providers:
            return  # the lines are told
        body = {"model": f"{min(settings.providers)}/of-a-line"}
        said_rules(request.require, request.forbid)
        route, rules = {**route, "require": None, "forbid": None}, NO_RULES  # whether they hold depends on the lines
    try:
        Router(settings, route_options(route), endpoint=cast(Endpoint, request.endpoint), rules=rules).resolve(body)
    except RequestError as error:
        if error.code != NOT_FOUND:
            raise
        raise RequestError(error.message, error.param) from None  # 404 is for an object that the batch is about
