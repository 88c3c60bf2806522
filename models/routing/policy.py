"""The policy of a chain: its settings, where they may be set, and how they are merged.

A setting is one field of `RequestPolicy` (requests, batches and chains may set it) or of `ChainPolicy` (only configured
chains may). Its docstring is its documentation, its type its validation. Everything that reads, merges or documents
policies uses these fields.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from understudy.models.failure import FailureClass
from understudy.models.routing.data_rules import NO_RULES, Rules, TagTable
from understudy.models.state import Priority

Order = Literal["chain", "cheapest", "fastest"]
"""The order in which eligible steps are tried: as written, by price, by measured latency."""

Acceptance = Literal["json_schema", "not_empty", "not_truncated", "not_refused"]
"""What a chain can require of an answer before it counts."""


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
        """This policy with what the layers set. A request's line wins over its batch, that over its chain, that over
        the defaults; but all data rules apply, and so do the tenant's (`rules`)."""
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
