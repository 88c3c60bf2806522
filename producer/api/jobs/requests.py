"""Requests that create jobs, for the OpenAPI document. `submission` parses and validates the bodies."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from understudy.models.request.wire import ErrorDetail
from understudy.models.routing.chain import Acceptance

MOST_JOBS = 1_000

EXAMPLE: JsonDict = {"messages": [{"role": "user", "content": "Say hello."}], "metadata": {"flow": "invoices"}}


class JobWords(BaseModel):
    """Additional fields of Understudy, allowed in the body of any job."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str | None = None
    """`provider/model`, the name of a chain, or a model listed by one provider. Default: the chain `default`."""
    chain: str | None = None
    """A configured chain, instead of `model`."""
    fallbacks: list[str | dict[str, Any]] | None = None
    """Models to fall back to: names, or objects with `model` and parameters that override those of the request."""
    allow_fallbacks: bool | None = None
    """False: use only the first model."""
    patience_s: float | None = Field(default=None, ge=0)
    """Seconds to wait for a model that refuses before the next one is asked."""
    spill: bool | None = None
    """Also move on to the next model when one is merely at its limit."""
    accept: list[Acceptance] | None = None
    """Conditions that an answer must meet; otherwise it counts as a failure, and the next model is asked."""
    max_fallback_share: float | None = Field(default=None, ge=0, le=1)
    """Applies to lines of batches; ignored for single jobs."""
    order: Literal["chain", "cheapest", "fastest"] | None = None
    """Order of the models: as written (`chain`), `cheapest` for this request first, or recently `fastest` first."""
    require: dict[str, Any] | None = None
    """Tags that a provider must have, such as `{"region": ["eu", "ch"], "zdr": true}`."""
    forbid: dict[str, Any] | None = None
    """Tag values that a provider must not have. A provider without the tag is excluded, too."""
    priority: Literal["interactive", "normal", "bulk"] | None = None
    """`interactive`, `normal` (default) or `bulk`."""
    callback_url: str | None = None
    """URL that receives a signed POST when the job ends."""
    metadata: dict[str, str] | None = None
    """Up to 16 key-value pairs; keys up to 64 characters, values up to 512."""
    expires_in_s: float | None = Field(default=None, gt=0, le=604_800)
    """Seconds until the job expires, at most 604,800 (7 days)."""
    custom_id: str | None = None
    """The caller's id for the job."""


class JobRequest(JobWords):
    """A chat-completion body with additional fields. Fields not listed here are passed to the provider unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    messages: list[dict[str, Any]] = Field(min_length=1)
    """The conversation, as for a chat completion."""


class JobsRequest(BaseModel):
    """Up to 1,000 jobs, each accepted or rejected individually."""

    jobs: list[JobRequest] = Field(min_length=1, max_length=MOST_JOBS)


class SubmittedJob(BaseModel):
    """The outcome for one of the jobs: either `id` or `error`."""

    index: int
    id: str | None
    custom_id: str | None
    error: ErrorDetail | None


class SubmittedJobs(BaseModel):
    object: Literal["list"]
    data: list[SubmittedJob]
