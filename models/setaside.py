"""Which credentials are set aside, and whether a step has any left.

A credential that was refused for a reason that only a person can mend is recorded in the ledger until
`understudy providers enable`, a changed secret, or (for money) a probe that is answered.
"""

from dataclasses import dataclass

from models.failure import FailureClass

ALL_MODELS = ""


@dataclass(frozen=True, slots=True)
class SetAside:
    """`model` ALL_MODELS, or the one model that this credential does not have. `probe_at`: when one job may try."""

    provider: str
    key: str
    model: str
    failure: FailureClass
    reason: str
    fingerprint: str
    since: float
    probe_at: float | None = None

    def forbids(self, model: str, now: float) -> bool:
        return self.model in (ALL_MODELS, model) and (self.probe_at is None or self.probe_at > now)
