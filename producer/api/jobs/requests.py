"""Requests that create jobs, for the OpenAPI document. `submission` parses and validates the bodies."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from understudy.models.request.wire import ErrorDetail
from understudy.producer.request_fields import JobFields

MOST_JOBS = 1_000

EXAMPLE: JsonDict = {"messages": [{"role": "user", "content": "Say hello."}], "metadata": {"flow": "invoices"}}


class JobRequest(JobFields):
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
