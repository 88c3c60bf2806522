"""The script of the fake providers: which requests fail and how, which limits apply, and the answers."""

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from understudy.models.config.errors import SettingsError, explain
from understudy.models.failure import FailureClass


class Fail(StrEnum):
    """What a rule can do to a request; `cls` is the failure class that a client should derive from it."""

    RATE_LIMIT = "rate_limit"  # 429 with a hint of `retry_after_s`, where the dialect has hints
    RATE_LIMIT_NO_HINT = "rate_limit_no_hint"
    RATE_LIMIT_PER_DAY = "rate_limit_per_day"
    SERVER = "server"  # 500
    BAD_GATEWAY = "bad_gateway"  # 502, the page of a proxy
    GATEWAY_TIMEOUT = "gateway_timeout"  # 504, the page of a proxy
    UNAVAILABLE = "unavailable"  # 503, a line of text from a proxy
    OVERLOADED = "overloaded"  # the provider's own error for "no capacity": 503, 529, 498
    CREDENTIAL = "credential"
    QUOTA = "quota"
    MODEL_MISSING = "model_missing"
    CONTEXT_LENGTH = "context_length"
    TOO_LARGE = "too_large"
    CONTENT_FILTER = "content_filter"
    BAD_REQUEST = "bad_request"
    REGION = "region"
    MALFORMED = "malformed"  # 200, not JSON
    TRUNCATED = "truncated"  # 200, JSON that ends in the middle
    HTML = "html"  # 200, a web page
    EMPTY = "empty"  # 200, nothing
    ERROR_IN_200 = "error_in_200"  # 200, an error body
    STALL = "stall"  # no answer, ever
    DRIP = "drip"  # 200 headers, then a space each second, forever
    DROP = "drop"  # the connection closes without an answer
    DROP_MIDWAY = "drop_midway"  # the connection closes in the middle of the answer

    @property
    def cls(self) -> FailureClass:
        return _CLASS.get(self) or FailureClass(self.value)


_CLASS = {
    Fail.RATE_LIMIT_NO_HINT: FailureClass.RATE_LIMIT,
    Fail.RATE_LIMIT_PER_DAY: FailureClass.RATE_LIMIT,
    Fail.BAD_GATEWAY: FailureClass.SERVER,
    Fail.GATEWAY_TIMEOUT: FailureClass.SERVER,
    Fail.UNAVAILABLE: FailureClass.OVERLOADED,
    Fail.MALFORMED: FailureClass.BAD_RESPONSE,
    Fail.TRUNCATED: FailureClass.BAD_RESPONSE,
    Fail.HTML: FailureClass.BAD_RESPONSE,
    Fail.EMPTY: FailureClass.BAD_RESPONSE,
    Fail.ERROR_IN_200: FailureClass.BAD_RESPONSE,
    Fail.STALL: FailureClass.TIMEOUT,
    Fail.DRIP: FailureClass.TIMEOUT,
    Fail.DROP: FailureClass.TIMEOUT,
    Fail.DROP_MIDWAY: FailureClass.TIMEOUT,
}

DialectName = Literal["openai", "azure", "groq", "mistral", "openrouter", "xai", "anthropic", "gemini", "bedrock"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Lognormal(Section):
    """Half of the values are below the median; `sigma` 0.5 puts one in twenty above 2.3 times the median."""

    kind: Literal["lognormal"]
    median: float = Field(gt=0)
    sigma: float = Field(default=0.5, ge=0, le=5)


class Uniform(Section):
    kind: Literal["uniform"]
    low: float = Field(ge=0)
    high: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Uniform":
        if self.high < self.low:
            raise ValueError("high must not be below low")
        return self


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return f"[{value.get('kind')}]"
    return f"[{getattr(value, 'kind', 'number')}]"


Spread = Annotated[
    Annotated[float, Field(ge=0), Tag("[number]")]
    | Annotated[Lognormal, Tag("[lognormal]")]
    | Annotated[Uniform, Tag("[uniform]")],
    Discriminator(_kind_of, "kind", "must have the kind lognormal or uniform"),
]
"""A fixed number, or a distribution to draw from."""

Share = Annotated[float, Field(ge=0, le=1)]


class Answers(Section):
    """The answers. In a rule, only the given fields override these."""

    text: str = "Answer {hash} of {model}."  # may use {hash}, {prompt}, {model}, {provider}
    output_tokens: Spread | None = None  # None: the text's own length
    reasoning_tokens: int = Field(default=0, ge=0)
    cached_share: Share = 0.0  # of the input tokens, reported as read from the provider's cache
    tools: Literal["when_required", "always", "never"] = "when_required"  # call the first tool that was sent
    heeds_format: bool = True  # False: `text` is the answer whatever `response_format` requires
    finish: Literal["stop", "length", "refusal"] | None = None  # None: stop, or length at max_tokens
    latency_s: Spread = 0.0

    @field_validator("text")
    @classmethod
    def _only_known_fields(cls, text: str) -> str:
        unknown = set(re.findall(r"{([^{}]*)}", text)) - {"hash", "prompt", "model", "provider"}
        if unknown:
            raise ValueError(
                f"contains {{{min(unknown)}}}, which is not one of {{hash}}, {{prompt}}, {{model}}, {{provider}}"
            )
        return text


class Rule(Section):
    """Matchers (all must match), conditions, and the effect. The first rule that fires decides about a request."""

    provider: str | None = None  # name or glob
    model: str | None = None  # name or glob
    message: str | None = None  # regular expression, searched in the text of the last user message
    key: str | None = None  # the credential as sent, or a glob
    min_bytes: int | None = Field(default=None, ge=0)  # of the request body
    max_bytes: int | None = Field(default=None, ge=0)

    between: tuple[float, float] | None = None  # seconds since the start (or the last reset), end excluded
    first: int | None = Field(default=None, ge=0)  # only the first N requests that match
    first_per_prompt: int | None = Field(default=None, ge=0)  # only the first N calls of each prompt
    probability: Share = 1.0
    weight: float | None = Field(default=None, ge=0)  # adjacent rules with equal matchers: one is drawn by weight

    fail: Fail | None = None  # None: answer
    retry_after_s: float | None = Field(default=None, ge=0)
    latency_s: Spread | None = None  # None: that of the answers if it answers, none if it fails
    answer: Answers | None = None

    @field_validator("message")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _makes_sense(self) -> "Rule":
        if self.between and self.between[1] <= self.between[0]:
            raise ValueError("between must be [from, to] with from below to")
        if self.fail and self.answer:
            raise ValueError("fail and answer exclude each other")
        return self

    @property
    def matchers(self) -> tuple[object, ...]:
        """Rules with weights and equal keys form one draw."""
        return (self.provider, self.model, self.message, self.key, self.min_bytes, self.max_bytes, self.between)


class Limit(Section):
    """An enforced limit. Every model, and every key or account, has its own budget."""

    provider: str = "*"
    model: str = "*"
    per: Literal["key", "account"] = "key"  # account: all keys of the provider together
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    window: Literal["bucket", "fixed", "sliding"] = "bucket"
    burst_s: float = Field(default=1.0, gt=0)  # of a bucket: how many seconds' worth it holds
    count_max_tokens: bool = False  # reserve the request's max_tokens instead of the actual output

    @model_validator(mode="after")
    def _limits_something(self) -> "Limit":
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise ValueError("requests_per_minute or tokens_per_minute is missing")
        return self


class MockConfig(Section):
    """The whole script. The empty one answers everything at once."""

    seed: int = 0
    rules: tuple[Rule, ...] = ()
    limits: tuple[Limit, ...] = ()
    answers: Answers = Answers()
    dialects: dict[str, DialectName] = {}  # provider -> format of errors and headers; default: by name, then by path
    models: tuple[str, ...] = ("mock-small", "mock-large")  # the content of the list of models


def load_config(path: Path) -> MockConfig:
    """Read a TOML file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    return parse_config(document, path, text)


def parse_config(document: Any, source: Path = Path("the configuration"), text: str = "") -> MockConfig:
    """Validate a document; `source` and the `text` that it was read from show the place in the error. Raises
    SettingsError."""
    try:
        return MockConfig.model_validate(document)
    except ValidationError as error:
        raise explain(error, MockConfig, source, text) from None
