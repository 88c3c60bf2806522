"""The request that creates a batch: OpenAI's fields and ours, validated before anything is written."""

from typing import Annotated, Any, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field

from understudy.models.config.catalog import suggestion
from understudy.models.config.settings import Settings
from understudy.models.request.endpoints import ENDPOINTS, endpoint_named
from understudy.models.request.wire import NOT_FOUND, ROUTE_WORDS, RequestError
from understudy.models.routing.chain import Acceptance, Endpoint, Order
from understudy.models.routing.data_rules import NO_RULES, Rules
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
    """When the output and error files are deleted, counted from their creation at the end of the batch."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    anchor: Annotated[str, Field(pattern="^created_at$")] = "created_at"
    seconds: int = Field(ge=3_600, le=2_592_000)
    """An hour to 30 days."""


class BatchRequest(BaseModel):
    """OpenAI's request to create a batch. The fields after `output_expires_after` are Understudy's; pass them in
    `extra_body` of the OpenAI SDK."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)

    input_file_id: str = Field(min_length=1, max_length=200)
    """The id of an uploaded file of lines."""
    endpoint: str
    """`/v1/chat/completions` or `/v1/embeddings`; the `url` of each line must be the same."""
    completion_window: str
    """Time after which unfinished lines expire: `24h`, or any time from `1m` to `7d`."""
    metadata: dict[str, str] | None = None
    """Up to 16 key-value pairs; keys up to 64 characters, values up to 512."""
    output_expires_after: OutputExpiry | None = None
    model: str | None = None
    """Model for lines without one."""
    chain: str | None = None
    """A configured chain, instead of the models of the lines."""
    fallbacks: list[str | dict[str, Any]] | None = None
    """Models to fall back to, for lines without their own."""
    allow_fallbacks: bool | None = None
    """False: use only the first model."""
    priority: str = Priority.BULK.queue
    """`interactive`, `normal` or `bulk`."""
    weight: float = Field(default=USUAL_WEIGHT, ge=LEAST_WEIGHT, le=MOST_WEIGHT, allow_inf_nan=False)
    """Share of capacity relative to other batches of the same tenant and priority, 0.01 to 100."""
    webhook_url: str | None = Field(default=None, max_length=MAX_URL_CHARS)
    """URL that receives a signed POST when the batch ends."""
    patience_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds to wait for a model that refuses before the next one is asked."""
    spill: bool | None = None
    """Also move on to the next model when one is merely at its limit."""
    budget_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """US dollars: the batch pauses before its calls cost more, until it is resumed."""
    accept: list[Acceptance] | None = None
    """Conditions that an answer must meet; otherwise it counts as a failure, and the next model is asked."""

    max_fallback_share: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Maximum share of the lines that fallbacks may answer; the others wait for the first model."""
    order: Order | None = None
    """Order of the models: as written (`chain`), `cheapest` or `fastest` first."""
    require: dict[str, Any] | None = None
    """Tags that the providers of all lines must have, such as `{"region": ["eu", "ch"], "zdr": true}`."""
    forbid: dict[str, Any] | None = None
    """Tag values that the providers must not have. A provider without the tag is excluded, too."""

    @property
    def window_s(self) -> float:
        return window_s(self.completion_window)

    @property
    def queue(self) -> Priority:
        return words.priority(self.priority, Priority.BULK)

    @property
    def route(self) -> dict[str, Any]:
        """The given routing fields, as arguments of `RouteOptions`."""
        return {word: getattr(self, word) for word in ROUTE_WORDS if getattr(self, word) is not None}


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
    """Identical bytes for equivalent requests. Raises RequestError for content that cannot be stored."""
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None
    if NUL in text.replace(rb"\\", b""):
        raise RequestError("the body contains a NUL character, which cannot be stored", code="invalid_value")
    return text


def _check_route(request: BatchRequest, settings: Settings, rules: Rules) -> None:
    """Reject options that would make every line fail."""
    route = request.route
    if not route:
        return
    body: dict[str, Any] = {}
    if "model" not in route and "chain" not in route:
        if not settings.providers:
            return  # each line reports it
        body = {"model": f"{min(settings.providers)}/of-a-line"}
        said_rules(request.require, request.forbid)
        route, rules = (
            {**route, "require": None, "forbid": None},
            NO_RULES,
        )  # whether they can be met depends on the lines
    try:
        Router(settings, route_options(route), endpoint=cast(Endpoint, request.endpoint), rules=rules).resolve(body)
    except RequestError as error:
        if error.code != NOT_FOUND:
            raise
        raise RequestError(error.message, error.param) from None  # 404 is for the input file
