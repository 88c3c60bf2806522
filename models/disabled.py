"""A disabled credential: why, since when, and when one job may probe it.

A credential rejected for a reason that only a person can fix is recorded in the ledger until `understudy providers
enable`, a changed secret, or a successful probe.
"""

from dataclasses import dataclass

from understudy.models.failure import FailureClass

ALL_MODELS = ""

BY_HAND = "by hand: "
"""Prefix of the reason when a person disabled the credential."""

FORGOTTEN = "the provider's message was removed with the content of its job"
"""Replaces a reason that may quote a prompt that is no longer stored."""

PROBE_EVERY_S = 900.0
"""How often one real job probes a credential that ran out of money, or that lacks a model."""

WEAK_PROBES_S = (2.0, 60.0)
"""The first and the longest pause before a credential disabled on weak evidence is probed; the pause doubles."""


@dataclass(frozen=True, slots=True)
class DisabledCredential:
    """`model` ALL_MODELS, or the one model that this credential lacks. `since`: when it was disabled, regardless of
    later probes. `probe_at`: when one job may probe it; None: not before a person has acted. `job_id`: the job whose
    provider message `reason` repeats; None: `reason` is not a provider's.
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
        """Based on what may be an accident, and not yet confirmed by time."""
        return self.probe_at is not None and self.probe_at - self.since < PROBE_EVERY_S

    @property
    def is_by_hand(self) -> bool:
        return self.reason.startswith(BY_HAND)

    def next_probe(self, now: float) -> float:
        """When to probe it again after a probe that begins now."""
        shortest, longest = WEAK_PROBES_S if self.is_weak else (PROBE_EVERY_S, PROBE_EVERY_S)
        return now + min(max(now - self.since, shortest), longest)

    def forbids(self, model: str, now: float) -> bool:
        return self.model in (ALL_MODELS, model) and (self.probe_at is None or self.probe_at > now)
