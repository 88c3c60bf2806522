"""A chain: the ordered deployments that one job may use, with the policy it was accepted with (`policy`).

Chains are stored once, by the hash of their content, so a million jobs share one row.
"""

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from understudy.models.routing.data_rules import Tags
from understudy.models.routing.policy import ChainPolicy

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]
CHAT: Endpoint = "/v1/chat/completions"
EMBEDDINGS: Endpoint = "/v1/embeddings"

Modality = Literal["text", "image", "audio", "file"]
Feature = Literal["tools", "json_schema", "images", "audio", "files"]
"""What a request may need from a model beyond text."""


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


class Chain(ChainPolicy):
    """The steps of one job, and the policy that was merged for it."""

    steps: tuple[Step, ...]
    endpoint: Endpoint = CHAT
    """The endpoint that its steps are called at."""
    require: Tags = Field(default_factory=dict)  # unlike tags as written: merged rules may have more of them
    forbid: Tags = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """Content hash: equal chains have equal ids. Sets are put in order: two processes iterate over one
        differently."""
        content = orjson.dumps(self.model_dump(), default=sorted, option=orjson.OPT_SORT_KEYS)
        return "chn_" + hashlib.sha256(content).hexdigest()[:24]

    def lead_alone(self) -> "Chain":
        """The chain restricted to its first step, for a job that no other step may answer."""
        return self.model_copy(update={"steps": self.steps[:1]})
