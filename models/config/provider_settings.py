"""The sections of the configuration about providers: their keys, limits, prices and features."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from understudy.models.routing.data_rules import TagTable

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
REFERENCE = re.compile(r"env\.[A-Za-z_][A-Za-z0-9_]*|file\.\S.*|cmd\.\S.*")
NOT_A_REFERENCE = (
    "must say where the secret is, not be it: write env.NAME, file./path or cmd.program; "
    "if this was a real key, rotate it"
)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


def _is_reference(value: str) -> str:
    if not REFERENCE.fullmatch(value):
        raise ValueError(NOT_A_REFERENCE)
    return value


def _named_key(value: object) -> object:
    """A key given only as a reference is named after its source."""
    if not isinstance(value, str):
        return value
    kind, _, place = _is_reference(value).partition(".")
    name = {"env": place, "file": Path(place).name, "cmd": Path(place.split()[0]).name}[kind]
    return {"name": name, "value": value}


class ApiKey(Section):
    """One credential. A plain string is short for `{ value = "…" }`, named after the variable, file or program."""

    name: str = Field(pattern=NAME)
    """The name shown in results, in logs and for `--key`. It is not secret."""
    value: Annotated[str, AfterValidator(_is_reference)]
    """Where the secret is, never the secret itself: `env.NAME`, `file./path` or `cmd.program arguments`."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the calls relative to the provider's other keys: 2 gets twice as many as 1."""
    account: str | None = Field(default=None, pattern=NAME)
    """The provider account that the key belongs to; keys of one account share its limits. Default: an account of its
    own."""


class Limits(Section):
    """Limits apply per account and model, across all workers on all machines."""

    requests_per_minute: int | None = Field(default=None, gt=0)
    """Calls per minute. Default: no limit until the provider refuses a call, then the rate it accepted, raised by 1%
    every second."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Input and output tokens per minute. Default: no limit of our own."""
    requests_per_day: int | None = Field(default=None, gt=0)
    """Calls per UTC day; once used up, the next call starts at midnight UTC. Default: no limit of our own."""
    tokens_per_day: int | None = Field(default=None, gt=0)
    """Input and output tokens per UTC day. Default: no limit of our own."""
    max_in_flight: int | None = Field(default=None, gt=0)
    """Concurrent calls across all workers. Default: limited only by the workers' `max_concurrency`."""


class LimitOverride(Limits):
    """Limits for one model, one account, or one model of one account. The most specific match wins, account before
    model; fields it omits come from the less specific matches and the provider."""

    model: str | None = None
    """The provider's name for the model. Default: all models."""
    account: str | None = None
    """The account. Default: all accounts."""


class Price(Section):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    """Input tokens."""
    output: float = Field(ge=0)
    """Output tokens, reasoning included."""
    cached_input: float | None = Field(default=None, ge=0)
    """Input tokens read from the provider's cache. Default: same as `input`."""


class ModelFeatures(Section):
    """What a model can do. Omitted fields are filled from verified data on well-known models served by their makers;
    unknown features are tried."""

    tools: bool | None = None
    """Whether it supports tools."""
    json_schema: bool | None = None
    """Whether it honors a `response_format` of type `json_schema`."""
    images: bool | None = None
    """Whether it accepts images."""
    audio: bool | None = None
    """Whether it accepts or produces audio."""
    files: bool | None = None
    """Whether it accepts files."""
    context_window: int | None = Field(default=None, gt=0)
    """Tokens of input and output together. A request whose estimated input exceeds this by up to a fifth is still
    tried."""
    max_output_tokens: int | None = Field(default=None, gt=0)
    """The maximum output tokens that a request may ask for."""


class Provider(Limits):
    """One or more accounts at one provider. NAME is the first part of `provider/model`. Limits apply per account and
    model, across all workers on all machines."""

    kind: Literal["openai", "anthropic", "gemini", "bedrock"] | None = None
    """The wire protocol. Default: the preset's, or `openai`."""
    preset: str | None = None
    """The catalog entry whose address, protocol and dialect apply. Default: the entry of the same name."""
    base_url: str | None = Field(default=None, pattern=r"^https?://")
    """The base URL; for the OpenAI protocol it includes the version, such as `http://127.0.0.1:11434/v1`."""
    api_keys: tuple[Annotated[ApiKey, BeforeValidator(_named_key, json_schema_input_type=str | ApiKey)], ...] = ()
    """The credentials. Default: the preset's variable, if set."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Total seconds for one call, from sending to the last byte. A response that has started is abandoned earlier,
    as a timeout, if it delivers less than 3,000 bytes in 30 seconds without ending."""
    headers: dict[str, str] = {}
    """HTTP headers sent with every call. Secrets belong in `api_keys`, not here."""
    options: dict[str, str] = {}
    """`region` (Bedrock), `api_version` (Azure with a base URL that does not end in /v1), `organization` and `project`
    (OpenAI)."""
    models: tuple[str, ...] = ()
    """Models that belong to this provider when a request names them without `provider/`."""
    limits: tuple[LimitOverride, ...] = ()
    """Limits for individual models and accounts, overriding the provider's own."""
    prices: dict[str, Price] = {}
    """Prices by model, for models missing from the built-in price list or billed to you at other rates."""
    budget_usd_per_day: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Maximum US dollars per UTC day for its calls. When spent, its steps are skipped until the next day or until
    `understudy resume provider:NAME`. Default: no budget."""
    budget_usd_per_month: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The same per calendar month (UTC)."""
    tags: TagTable = {}
    """Tags that data rules check, such as `{ region = "eu", zdr = true }`: strings, booleans or lists of strings.
    Several values mean that it may use any of them."""
    features: dict[str, ModelFeatures] = {}
    """Features of its models, by model."""
