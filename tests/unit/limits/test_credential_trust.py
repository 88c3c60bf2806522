"""How many refusals count against a credential, and how soon one that was disabled by mistake is tried again."""

from itertools import pairwise

import pytest

from understudy.models.disabled import PROBE_EVERY_S, WEAK_PROBES_S, DisabledCredential
from understudy.models.failure import Failure, FailureClass
from understudy.worker.limits.disabled_credentials import RECENTLY_S, CredentialTrust, Proof

NOW = 1_000_000.0
SURE = Failure(FailureClass.CREDENTIAL, "Incorrect API key.", sure=True)
VAGUE = Failure(FailureClass.CREDENTIAL, "Forbidden.")


def refused(
    standing: CredentialTrust, failure: Failure, *jobs: str, now: float = NOW, others: bool = False
) -> Proof | None:
    proof = None
    for job in jobs:
        proof = standing.saw_refusal(failure, job, now, answers_others=others)
    return proof


@pytest.mark.parametrize(
    ("failure", "answered", "jobs", "proof"),
    [
        (SURE, False, "a", Proof.STRONG),
        (SURE, True, "a", None),
        (SURE, True, "aaaa", None),
        (SURE, True, "ab", Proof.WEAK),
        (VAGUE, False, "a", None),
        (VAGUE, False, "ab", None),
        (VAGUE, False, "aaaaa", None),
        (VAGUE, False, "abc", Proof.WEAK),
        (VAGUE, True, "ab", None),
        (VAGUE, True, "abc", Proof.WEAK),
    ],
)
def test_what_refusals_in_a_row_prove(failure: Failure, answered: bool, jobs: str, proof: Proof | None) -> None:
    standing = CredentialTrust()
    if answered:
        standing.saw_answer(NOW - 1)
    assert refused(standing, failure, *jobs) is proof
    assert refused(CredentialTrust(), failure, *jobs, others=answered) is proof


def test_an_answer_between_them_or_another_reason_begins_the_row_again() -> None:
    standing = CredentialTrust()
    assert refused(standing, VAGUE, "a", "b") is None
    standing.saw_answer(NOW)
    assert refused(standing, VAGUE, "c", "d") is None
    assert refused(standing, Failure(FailureClass.QUOTA, "402"), "e") is None
    assert refused(standing, VAGUE, "f") is None


def test_an_answer_speaks_for_a_credential_for_some_minutes() -> None:
    standing = CredentialTrust()
    standing.saw_answer(NOW)
    assert refused(standing, SURE, "a", now=NOW + RECENTLY_S - 1) is None
    assert refused(standing, SURE, "a", now=NOW + RECENTLY_S) is Proof.STRONG


def aside(probe_at: float | None) -> DisabledCredential:
    return DisabledCredential("alpha", "main", "", FailureClass.CREDENTIAL, "403", "f", NOW, probe_at)


def test_weak_evidence_is_probed_after_seconds_and_then_less_and_less_often_until_time_confirms_it() -> None:
    row, probes = aside(NOW + WEAK_PROBES_S[0]), [NOW]
    while row.is_weak:
        assert row.probe_at is not None
        probes.append(row.probe_at)
        row = aside(row.next_probe(row.probe_at))
    pauses = [b - a for a, b in pairwise(probes)]
    assert pauses[:6] == [2, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {60}
    assert row.next_probe(probes[-1]) == probes[-1] + PROBE_EVERY_S


def test_strong_evidence_is_probed_every_quarter_of_an_hour_or_not_at_all() -> None:
    assert not aside(None).is_weak
    row = aside(NOW + PROBE_EVERY_S)
    assert not row.is_weak
    assert row.next_probe(NOW + PROBE_EVERY_S + 5) == NOW + 2 * PROBE_EVERY_S + 5
