"""A chain: the ordered deployments that one job may use, with the policy it was accepted with.

Chains are stored once, by the hash of their content, so a million jobs share one row.
"""

import hashlib
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict

from models.failure import FailureClass

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]
CHAT: Endpoint = "/v1/chat/completions"
EMBEDDINGS: Endpoint = "/v1/embeddings"

NEVER_FALL_BACK_ON = frozenset({FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER})
"""Unless a chain says otherwise, these end the job instead of moving it on."""


class Step(BaseModel):
    """One provider and model, with the parameters that override the request's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    params: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class Chain(BaseModel):
    """`patience_s` None means the default of the job's priority; `fallback_on` None means all but bad_request
    and content_filter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...]
    patience_s: float | None = None
    spill: bool = False
    fallback_on: frozenset[FailureClass] | None = None
    endpoint: Endpoint = CHAT
    """What its steps are asked for."""

    @property
    def id(self) -> str:
        """Content hash: equal chains have equal ids."""
        document = self.model_dump(mode="json")
        if document["fallback_on"] is not None:
            document["fallback_on"].sort()
        return "chn_" + hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]

    def falls_back_on(self, cls: FailureClass) -> bool:
        if self.fallback_on is None:
            return cls not in NEVER_FALL_BACK_ON
        return cls in self.fallback_on
