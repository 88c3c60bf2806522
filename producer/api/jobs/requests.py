"""Requests that create jobs, for the OpenAPI document. `submission` parses and validates the bodies."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from understudy.models.request.wire import ErrorDetail
from understudy.models.routing.options import RouteOptions

MOST_JOBS = 1_000

EXAMPLE: JsonDict = {"messages": [{"role": "user", "content": "Say hello."}], "metadata": {"flow": "invoices"}}


class JobWords(RouteOptions):
    """Additional fields of Understudy, allowed in the body of any job."""

    model_config = ConfigDict(extra="allow")

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
