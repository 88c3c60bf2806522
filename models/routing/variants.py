"""Weighted steps: of several steps each job asks one, and the same job always the same one."""

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
        """Which of the steps is the one for the job of this name.

        It depends on the name and the models alone, so other weights move as few names as can be.
        """
        models = "\n".join(map(str, self.steps))
        digest = hashlib.sha256(f"{models}\0{name}".encode("utf-8", "surrogatepass")).digest()
        point = int.from_bytes(digest[:8], "big") / POINTS * sum(self.weights)
        ends = accumulate(self.weights)
        return next((side for side, end in enumerate(ends) if point < end), len(self.steps) - 1)


Entry = Step | Variants
"""What a place in a chain holds before a job's side is known."""


def steps_of(entry: Entry) -> tuple[Step, ...]:
    """All that it may become."""
    return entry.steps if isinstance(entry, Variants) else (entry,)
