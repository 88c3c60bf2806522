"""A chain: the ordered deployments that one job may use, with the policy it was accepted with.

Chains are stored once, by the hash of their content, so a million jobs share one row.
"""

import hashlib
from typing import Any, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field

from understudy.models.failure import FailureClass

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]
CHAT: Endpoint = "/v1/chat/completions"
EMBEDDINGS: Endpoint = "/v1/embeddings"

Order = Literal["chain", "cheapest", "fastest"]
"""The order in which eligible steps are tried: as written, by price, by measured latency."""

Modality = Literal["text", "image", "audio", "file"]
Feature = Literal["tools", "json_schema", "images", "audio", "files"]
"""What a request may need from a model beyond text."""

Acceptance = Literal["json_schema", "not_empty", "not_truncated", "not_refused"]
"""What a chain can require of an answer before it counts."""

ACCEPTANCE: tuple[Acceptance, ...] = get_args(Acceptance)

Tags = dict[str, tuple[str, ...]]
"""Values by tag name, such as `region: eu, ch` or `zdr: true`."""

NO_FIRST_STEP = "requires 'order' = 'chain', because otherwise no step is the first; remove one of them"


class When(BaseModel):
    """The requests that a step serves; all others skip it. Omitted fields match everything."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    min_input_tokens: int | None = Field(default=None, ge=0)
    """Minimum estimated input tokens."""
    max_input_tokens: int | None = Field(default=None, gt=0)
    """Maximum estimated input tokens."""
    modality: Modality | None = None
    """Only requests with images, audio or files; `text`: only requests without any of these."""
    needs: frozenset[Feature] = frozenset()
    """Only requests that need all of these."""


class Step(BaseModel):
    """One provider and model, with the parameters that override the request's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    params: dict[str, Any] = {}
    when: When | None = None

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class Chain(BaseModel):
    """`patience_s` None means the default of the job's priority; `fallback_on` None means all but bad_request and
    content_filter.

    `require` and `forbid` are rules about provider tags, checked before each call. `accept` lists what an answer must
    satisfy. `hedge_after_s`: after this long without an answer the next step is called in parallel, for interactive
    jobs and for the last `hedge_last` (a share) of a batch. `max_fallback_share`: at most this share of a batch's jobs
    may be answered by a step other than the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...]
    patience_s: float | None = None
    spill: bool = False
    fallback_on: frozenset[FailureClass] | None = None
    endpoint: Endpoint = CHAT
    """The endpoint that its steps are called at."""
    order: Order = "chain"
    require: Tags = {}
    forbid: Tags = {}
    accept: frozenset[Acceptance] = frozenset()
    hedge_after_s: float | None = None
    hedge_last: float = 0.0
    max_fallback_share: float | None = None

    @property
    def id(self) -> str:
        """Content hash: equal chains have equal ids."""
        document = _sorted(self.model_dump(mode="json"), self.model_dump())
        return "chn_" + hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]

    def lead_alone(self) -> "Chain":
        """The chain restricted to its first step, for a job that no other step may answer."""
        return self.model_copy(update={"steps": self.steps[:1]})

    def falls_back_on(self, cls: FailureClass) -> bool:
        if self.fallback_on is None:
            return cls.traits.falls_back
        return cls in self.fallback_on


def _sorted(shown: Any, value: Any) -> Any:
    """JSON with sets in order: two processes iterate over a set differently."""
    if isinstance(value, dict):
        return {key: _sorted(shown[key], value[key]) for key in shown}
    if isinstance(value, frozenset):
        return sorted(shown)
    if isinstance(value, tuple):
        return [_sorted(each, of) for each, of in zip(shown, value, strict=True)]
    return shown
