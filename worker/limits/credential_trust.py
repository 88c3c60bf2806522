"""When a refusal is enough to set a credential aside for everybody. Pure.

One odd answer is the affair of the job that got it. A credential is set aside by evidence against itself: a code or a
sentence that can mean nothing else, where nothing speaks for the credential, or the same refusal of several different
jobs in a row. What contradicts recent answers, or rests on a status alone, is weak: it is doubted after seconds.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from understudy.models.failure import Failure, FailureClass
from understudy.worker.limits.latency import FORGET_S

RECENTLY_S = FORGET_S
"""An answer speaks for a credential for so long, whichever worker got it."""

DOUBTED = 3
CONTRADICTED = 2
"""So many different jobs, in a row and refused alike, are evidence: where a status or a phrase might mean something
else, and where the words can mean nothing else but others were answered a moment ago."""


class Proof(Enum):
    WEAK = auto()  # probed after seconds
    STRONG = auto()


@dataclass(slots=True)
class CredentialTrust:
    """One credential, or one credential with one model, as this worker has seen it. Times are unix seconds."""

    answered_at: float = float("-inf")
    failure: FailureClass | None = None
    refused: set[str] = field(default_factory=set)  # jobs, in a row and for the same reason

    def saw_answer(self, now: float) -> None:
        self.answered_at = now
        self.refused.clear()

    def saw_refusal(self, failure: Failure, job_id: str, now: float, *, answers_others: bool) -> Proof | None:
        """What the refusals in a row prove by now. `answers_others`: another worker was answered a moment ago."""
        if failure.cls is not self.failure:
            self.failure = failure.cls
            self.refused.clear()
        if len(self.refused) < DOUBTED:
            self.refused.add(job_id)
        contradicted = answers_others or now - self.answered_at < RECENTLY_S
        if failure.sure and not contradicted:
            return Proof.STRONG
        return Proof.WEAK if len(self.refused) >= (CONTRADICTED if failure.sure else DOUBTED) else None
