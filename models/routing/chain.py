"""A chain: the ordered deployments that one job may use, with the policy it was accepted with.

A setting of that policy is one field of `RequestPolicy` (requests, batches and chains may set it) or of `ChainPolicy`
(only configured chains may). Its docstring is its documentation, its type its validation. Everything that reads, merges
or documents policies uses these fields.

Chains are stored once, by the hash of their content, so a million jobs share one row.
"""

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

from understudy.models.failure import FailureClass
from understudy.models.routing.data_rules import NO_RULES, Rules, Tags, TagTable
from understudy.models.state import Priority

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


POINTS = 2**64


@dataclass(frozen=True, slots=True)
class Variants:
    """The steps that share one place in a chain, each with its share of the jobs (A/B). Usually it is one step."""

    steps: tuple[Step, ...]
    weights: tuple[float, ...] = (1.0,)

    def variant_for(self, name: str) -> int:
        """The index of the step for the job of this name.

        It depends only on the name and the models, so changed weights move as few names as possible.
        """
        if len(self.steps) == 1:
            return 0
        models = "\n".join(map(str, self.steps))
        digest = hashlib.sha256(f"{models}\0{name}".encode("utf-8", "surrogatepass")).digest()
        point = int.from_bytes(digest[:8], "big") / POINTS * sum(self.weights)
        ends = accumulate(self.weights)
        return next((index for index, end in enumerate(ends) if point < end), len(self.steps) - 1)


class RequestPolicy(BaseModel):
    """What a request, its batch and its chain may say about the steps that serve it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    order: Order = "chain"
    """The order in which eligible steps are tried: as written (`chain`), by price for the job's estimated tokens
    (`cheapest`; unknown prices last), or by measured latency (`fastest`; unmeasured steps first)."""
    require: TagTable = {}
    """Tags that a provider must have, with no other values: `{ region = ["eu", "ch"], zdr = true }`. A provider
    without the tag is skipped."""
    forbid: TagTable = {}
    """Tags that a provider must not have: `{ region = "us" }`. A provider without the tag is unknown and skipped
    too."""
    patience_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds to wait for a step that refuses calls, or that is at the rate learned from its refusals, before
    later steps are tried too; 0 moves on at once. Configured and advertised limits do not count (see `spill`).
    Default: 0 for interactive jobs, 10 for single ones, 30 for batches."""
    spill: bool = False
    """Also skip a step that is only at its configured or learned limit, instead of waiting for it."""
    accept: frozenset[Acceptance] = Field(default=frozenset(), strict=False)  # for requests, a list is a set
    """What an acceptable answer must satisfy: `not_empty`, `not_truncated` (by the output token limit),
    `not_refused`, `json_schema` (matches its `response_format`). Any other answer is a `bad_response` failure, and
    the next step is tried."""
    max_fallback_share: float | None = Field(default=None, ge=0, le=1)
    """Maximum share of a batch's jobs that may be answered by a step other than the first; the rest wait for the
    first. Ignored for single jobs. Default: no limit."""

    @property
    def rules(self) -> Rules:
        return Rules(self.require, self.forbid)

    @property
    def conflict(self) -> tuple[str, str] | None:
        """A field that contradicts another one, and why."""
        if self.max_fallback_share is None or self.order == "chain":
            return None
        why = "requires 'order' = 'chain', because otherwise no step is the first; remove one of them"
        return "max_fallback_share", why

    def merged(self, *layers: "RequestPolicy", rules: Rules = NO_RULES) -> Self:
        """This policy with what the layers set; later ones win, but all data rules apply, and `rules` as well."""
        own = type(self).model_fields.keys()
        given = {name: getattr(layer, name) for layer in layers for name in layer.model_fields_set & own}
        rules = rules.merged(self.rules, *(layer.rules for layer in layers))
        return self.model_copy(update={**given, "require": rules.require, "forbid": rules.forbid})


class ChainPolicy(RequestPolicy):
    """What only a configured chain may say."""

    fallback_on: frozenset[FailureClass] | None = None
    """The failure classes (see below) that move a job to its next step; any other ends the job. Default: all but
    `bad_request` and `content_filter`."""
    hedge_after_s: float | None = Field(default=None, gt=0)
    """Seconds after which a call still running is hedged: the next step that can start at once is called in
    parallel, and the first good answer wins. For interactive jobs and for the last jobs of a batch (`hedge_last`).
    Default: never."""
    hedge_last: float = Field(default=0.0, ge=0, le=1)
    """Hedge the jobs of a batch once at most this share of them is unfinished, such as 0.01."""

    def patience_for(self, priority: Priority) -> float:
        """Seconds to wait for a step that refuses."""
        return priority.patience_s if self.patience_s is None else self.patience_s

    def falls_back_on(self, cls: FailureClass) -> bool:
        if self.fallback_on is None:
            return cls.traits.falls_back
        return cls in self.fallback_on


class Chain(ChainPolicy):
    """The steps of one job, and the policy that was merged for it."""

    steps: tuple[Step, ...]
    endpoint: Endpoint = CHAT
    """The endpoint that its steps are called at."""
    require: Tags = {}  # unlike tags as written: merged rules may have more of them
    forbid: Tags = {}

    @property
    def id(self) -> str:
        """Content hash: equal chains have equal ids. Sets are put in order: two processes iterate over one
        differently."""
        content = orjson.dumps(self.model_dump(), default=sorted, option=orjson.OPT_SORT_KEYS)
        return "chn_" + hashlib.sha256(content).hexdigest()[:24]

    def lead_alone(self) -> "Chain":
        """The chain restricted to its first step, for a job that no other step may answer."""
        return self.model_copy(update={"steps": self.steps[:1]})
