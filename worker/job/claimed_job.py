"""A claimed job, with what running it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from understudy.models.jobs.execution import StartedJob
from understudy.models.jobs.submission import SINGLE
from understudy.models.request.needs import Needs, needs_of
from understudy.models.request.tokens import most_output_tokens
from understudy.models.routing.chain import Chain
from understudy.models.routing.suitability import WhyNot
from understudy.worker.job.progress import Progress, in_order
from understudy.worker.job_resources import JobResources


@dataclass(frozen=True)
class ClaimedJob:
    job: StartedJob
    chain: Chain
    tools: JobResources

    @cached_property
    def body(self) -> Mapping[str, Any]:
        body: Mapping[str, Any] = orjson.loads(self.job.body)
        return body

    @cached_property
    def needs(self) -> Needs:
        return needs_of(self.body, self.chain.endpoint, self.job.tokens, most_output_tokens(self.body))

    @property
    def batch(self) -> str | None:
        """The batch whose answers are likely to be similar; single jobs have nothing in common."""
        return None if self.job.batch_id == SINGLE else self.job.batch_id

    def why_not(self, step: int) -> WhyNot | None:
        """Why this step of the chain, by index, may not be used."""
        return self.tools.choice.why_not(self.chain, self.chain.steps[step], self.needs)

    def primary(self, progress: Progress) -> int:
        """The index of the first step of this round that may serve this job: an answer by a later one is a fallback."""
        may_serve = (step for step in in_order(self.chain, progress) if self.why_not(step) is None)
        return next(may_serve, progress.step)
