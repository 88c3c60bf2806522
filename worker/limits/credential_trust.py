"""When a rejection is enough to disable a credential for all jobs. Pure.

One odd answer concerns only the job that received it. A credential is disabled by evidence against itself: an
unambiguous code or sentence, with nothing in favour of the credential, or the same rejection of several different jobs
in a row. Evidence that contradicts recent answers, or rests on a status alone, is weak: the credential is probed after
seconds.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from understudy.models.failure import Failure, FailureClass
from understudy.worker.limits.latency import FORGET_S

RECENTLY_S = FORGET_S
"""How long an answer counts in favour of a credential, whichever worker received it."""

DOUBTED = 3
CONTRADICTED = 2
"""This many different jobs rejected alike in a row are evidence if a status or phrase is ambiguous, or if it is
unambiguous but others were answered recently."""


class Proof(Enum):
    WEAK = auto()  # probed after seconds
    STRONG = auto()


@dataclass(slots=True)
class CredentialTrust:
    """One credential, or one credential with one model, as seen by this worker. Times are unix seconds."""

    answered_at: float = float("-inf")
    failure: FailureClass | None = None
    refused: set[str] = field(default_factory=set)  # jobs, in a row and for the same reason

    def saw_answer(self, now: float) -> None:
        self.answered_at = now
        self.refused.clear()

    def saw_refusal(self, failure: Failure, job_id: str, now: float, *, answers_others: bool) -> Proof | None:
        """What the consecutive rejections prove by now. `answers_others`: another worker was answered recently."""
        if failure.cls is not self.failure:
            self.failure = failure.cls
            self.refused.clear()
        if len(self.refused) < DOUBTED:
            self.refused.add(job_id)
        contradicted = answers_others or now - self.answered_at < RECENTLY_S
        if failure.sure and not contradicted:
            return Proof.STRONG
        return Proof.WEAK if len(self.refused) >= (CONTRADICTED if failure.sure else DOUBTED) else None
