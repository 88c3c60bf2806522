"""A/B variants of a step. Each job gets one, chosen by a stable hash of its name."""

import hashlib
from dataclasses import dataclass
from itertools import accumulate

from understudy.models.routing.chain import Step

POINTS = 2**64


@dataclass(frozen=True, slots=True)
class Variants:
    """The steps that share one place in a chain, each with its share of the jobs."""

    steps: tuple[Step, ...]
    weights: tuple[float, ...]

    def variant_for(self, name: str) -> int:
        """The index of the step for the job of this name.

        It depends only on the name and the models, so changed weights move as few names as possible.
        """
        models = "\n".join(map(str, self.steps))
        digest = hashlib.sha256(f"{models}\0{name}".encode("utf-8", "surrogatepass")).digest()
        point = int.from_bytes(digest[:8], "big") / POINTS * sum(self.weights)
        ends = accumulate(self.weights)
        return next((side for side, end in enumerate(ends) if point < end), len(self.steps) - 1)


Entry = Step | Variants
"""A place in a chain before a job's variant is chosen."""


def steps_of(entry: Entry) -> tuple[Step, ...]:
    """All steps that it may become."""
    return entry.steps if isinstance(entry, Variants) else (entry,)
