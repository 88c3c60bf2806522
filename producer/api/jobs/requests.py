"""What creates jobs, as the OpenAPI document shows it. The bodies are read and judged by `submission`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from understudy.models.request.wire import ErrorDetail
from understudy.models.routing.chain import Acceptance

MOST_JOBS = 1_000

EXAMPLE: JsonDict = {"messages": [{"role": "user", "content": "Say hello."}], "metadata": {"flow": "invoices"}}


class JobWords(BaseModel):
    """The words of ours that may stand in the body of any job."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str | None = None
    """`provider/model`, a chain's name, or a model that one provider lists. Absent: the chain `default`."""
    chain: str | None = None
    """A configured chain, in place of `model`."""
    fallbacks: list[str | dict[str, Any]] | None = None
    """Models to go on to, as names or as objects with `model` and parameters that override the request's."""
    allow_fallbacks: bool | None = None
    """False: only the first model is asked."""
    patience_s: float | None = Field(default=None, ge=0)
    """Seconds that a refusing model is waited for before the next is asked."""
    spill: bool | None = None
    """Also go on to the next model while one is merely at its limit."""
    accept: list[Acceptance] | None = None
    """What an answer must be to count as one; another is a failure, and the next model is asked."""
    max_fallback_share: float | None = Field(default=None, ge=0, le=1)
    """For the lines of batches; a job alone is not held by it."""
    order: Literal["chain", "cheapest", "fastest"] | None = None
    """Which model is asked first: as written, the cheapest for this request, or the fastest of late."""
    require: dict[str, Any] | None = None
    """Tags that a provider must have to be asked, such as `{"region": ["eu", "ch"], "zdr": true}`."""
    forbid: dict[str, Any] | None = None
    """Tags that it must not have; it must say so itself."""
    priority: Literal["interactive", "normal", "bulk"] | None = None
    """`interactive`, `normal` (when absent) or `bulk`."""
    callback_url: str | None = None
    """Told when the job ends, by a signed POST."""
    metadata: dict[str, str] | None = None
    """Up to 16 pairs of the caller's own; keys up to 64 characters, values up to 512."""
    expires_in_s: float | None = Field(default=None, gt=0, le=604_800)
    """After so many seconds, at most 604,800 (7 days), the job starts no more."""
    custom_id: str | None = None
    """The caller's name for the job."""


class JobRequest(JobWords):
    """A chat-completion body with our words beside. Whatever is not listed here goes to the provider as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    messages: list[dict[str, Any]] = Field(min_length=1)
    """The conversation, as for a chat completion."""


class JobsRequest(BaseModel):
    """Up to 1,000 jobs, each accepted or refused on its own."""

    jobs: list[JobRequest] = Field(min_length=1, max_length=MOST_JOBS)


class SubmittedJob(BaseModel):
    """What became of one of the jobs: either `id` or `error`."""

    index: int
    id: str | None
    custom_id: str | None
    error: ErrorDetail | None


class SubmittedJobs(BaseModel):
    object: Literal["list"]
    data: list[SubmittedJob]
