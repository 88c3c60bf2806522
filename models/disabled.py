"""Which credentials are set aside, and until when.

A credential that was refused for a reason that only a person can mend is recorded in the ledger until
`understudy providers enable`, a changed secret, or a probe that is answered.
"""

from dataclasses import dataclass

from understudy.models.failure import FailureClass

ALL_MODELS = ""

BY_HAND = "by hand: "
"""How the reason begins when a person set the credential aside."""

FORGOTTEN = "what the provider said went with the content of the job that it was said to"
"""In place of a reason that may quote a prompt which is not kept any more."""

PROBE_EVERY_S = 900.0
"""How often one real job tries a credential that ran out of money, or one that does not have a model."""

WEAK_PROBES_S = (2.0, 60.0)
"""The first pause before a credential is tried that was set aside on weak evidence, and the longest; it doubles."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """`model` ALL_MODELS, or the one model that this credential does not have. `since`: when it was set aside, whatever
    probes found afterwards. `probe_at`: when one job may try it; None: not before a person has acted. `job_id`: the job
    whose refusal `reason` repeats; None: `reason` is no provider's.
    """

    provider: str
    key: str
    model: str
    failure: FailureClass
    reason: str
    fingerprint: str
    since: float
    probe_at: float | None = None
    job_id: str | None = None

    @property
    def is_weak(self) -> bool:
        """It rests on what might be an accident, and time has not confirmed it."""
        return self.probe_at is not None and self.probe_at - self.since < PROBE_EVERY_S

    @property
    def is_by_hand(self) -> bool:
        return self.reason.startswith(BY_HAND)

    def next_probe(self, now: float) -> float:
        """When to try it after a probe that begins now."""
        shortest, longest = WEAK_PROBES_S if self.is_weak else (PROBE_EVERY_S, PROBE_EVERY_S)
        return now + min(max(now - self.since, shortest), longest)

    def forbids(self, model: str, now: float) -> bool:
        return self.model in (ALL_MODELS, model) and (self.probe_at is None or self.probe_at > now)
