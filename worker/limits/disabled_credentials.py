"""The disabled credentials as known to one worker, and when a rejection is enough to disable one for all jobs.

Findings are written to the ledger with the next `share`, which also reads those of others.

One odd answer concerns only the job that received it. A credential is disabled by evidence against itself: an
unambiguous code or sentence, with nothing in favour of the credential, or the same rejection of several different jobs
in a row. Evidence that contradicts recent answers, or rests on a status alone, is weak: the credential is probed after
seconds.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from understudy.models import disabled as setaside
from understudy.models.disabled import ALL_MODELS, DisabledCredential
from understudy.models.failure import Failure, FailureClass
from understudy.models.store import Store
from understudy.worker.limits.grants import Deployment
from understudy.worker.limits.latency import FORGET_S

log = logging.getLogger(__name__)

MOST_MISSING = 500
"""Callers choose model names freely: beyond this many missing models none is remembered, and each job is told by the
provider."""

FORGOTTEN_AFTER_S = 86_400.0
"""A missing model that was not requested since its probe was due is forgotten after this long."""

MOST_STANDINGS = 5_000

RECENTLY_S = FORGET_S
"""How long an answer counts in favour of a credential, whichever worker received it."""

DOUBTED = 3
CONTRADICTED = 2
"""This many different jobs rejected alike in a row are evidence if a status or phrase is ambiguous, or if it is
unambiguous but others were answered recently."""

Name = tuple[str, str, str]
"""(provider, key, model or ALL_MODELS)"""


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


@dataclass(frozen=True, slots=True)
class _Back:
    """A credential that works again: for all models, for one, or (None) for every record."""

    provider: str
    key: str
    model: str | None


class DisabledCredentials:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[Name, DisabledCredential] = {}
        self._rotated: set[tuple[str, str]] = set()
        self._untold: deque[DisabledCredential | _Back] = deque()
        self._standings: defaultdict[Name, CredentialTrust] = defaultdict(CredentialTrust)

    def find(self, provider: str, keys: Iterable[str], model: str) -> list[DisabledCredential]:
        """The records of these keys for exactly this model, or ALL_MODELS."""
        names = [(provider, key, model) for key in keys]
        return [self._rows[name] for name in names if name in self._rows]

    def of(self, deployment: Deployment) -> list[DisabledCredential]:
        """Why this deployment's credential is disabled: for all models, for this one, or empty."""
        key = [deployment.key]
        return [each for model in (ALL_MODELS, deployment.model) for each in self.find(deployment.provider, key, model)]

    def forbid(self, deployment: Deployment, *, even_missing: bool = False) -> bool:
        """`even_missing`: a missing model does not forbid its use."""
        rows = [row for row in self.of(deployment) if row.model == ALL_MODELS or not even_missing]
        return any(row.forbids(deployment.model, self._clock()) for row in rows)

    def is_on_probation(self, deployment: Deployment) -> bool:
        """Whether an answer would enable it again."""
        return bool(self.of(deployment)) or (deployment.provider, deployment.key) in self._rotated

    def probe(self, usable: Iterable[Deployment]) -> Deployment | None:
        """The deployment that is usable although disabled, because its probe is due. The caller becomes the probe;
        no other until the next is due."""
        now = self._clock()
        for deployment in usable:
            due = [row for row in self.of(deployment) if not row.forbids(deployment.model, now)]
            for row in due:
                self._record(replace(row, probe_at=row.next_probe(now)))
            if due:
                return deployment
        return None

    def refused(self, deployment: Deployment, failure: Failure, seen: str, job_id: str, *, answers: bool) -> None:
        """Disable the credential if its rejections are enough evidence by now. `seen` is the fingerprint of the
        secret, `answers`: another worker was answered with it recently."""
        model = deployment.model if failure.cls is FailureClass.MODEL_MISSING else ALL_MODELS
        standing = self._standing((deployment.provider, deployment.key, model))
        proof = standing.saw_refusal(failure, job_id, self._clock(), answers_others=answers)
        if proof is not None:
            self.put(deployment, model, failure, seen, proof, job_id)

    def put(
        self,
        deployment: Deployment,
        model: str,
        failure: Failure,
        seen: str,
        proof: Proof = Proof.STRONG,
        job_id: str | None = None,
    ) -> None:
        """If the secret no longer equals the one `seen`, the credential is tried again. `job_id`: the rejected job."""
        now, name = self._clock(), (deployment.provider, deployment.key, model)
        old = self._rows.get(name)
        if old is not None and old.fingerprint == seen and (proof is Proof.WEAK or not old.is_weak):
            return
        if model != ALL_MODELS and old is None and sum(bool(each) for *_, each in self._rows) >= MOST_MISSING:
            return
        probe_at = now + setaside.PROBE_EVERY_S if failure.cls.traits.probed else None
        if proof is Proof.WEAK:
            probe_at = now + setaside.WEAK_PROBES_S[0]
        if old is None:
            # The provider's own words stay in the ledger: they may quote the request.
            what = f"for {model}" if model else "for all models"
            log.warning("Key %s of %s is disabled %s: %s", deployment.key, deployment.provider, what, failure.cls)
        reason = failure.for_others or failure.message
        self._record(DisabledCredential(*name, failure.cls, reason, seen, now, probe_at, job_id))

    def answered(self, deployment: Deployment, asked_at: float, *, on_probation: bool) -> None:
        """A call prepared at that time was answered: its credential is enabled if it was disabled.

        A credential that worked before may still answer calls sent before it was disabled; that proves nothing.
        """
        name = (deployment.provider, deployment.key)
        for model in (ALL_MODELS, deployment.model):
            self._standing((*name, model)).saw_answer(self._clock())
        refuted = [
            row
            for row in self.of(deployment)
            if on_probation or not (row.is_by_hand or (row.is_weak and asked_at < row.since))
        ]
        for row in refuted:
            del self._rows[*name, row.model]
            self._untold.append(_Back(*name, row.model))
        if refuted:
            log.warning("Key %s of %s works again", deployment.key, deployment.provider)
        elif name in self._rotated:
            self._untold.append(_Back(*name, None))

    async def share(self, store: Store, was_rotated: Callable[[DisabledCredential], Awaitable[bool]]) -> None:
        """Write this worker's findings to the ledger, and read those of all."""
        while self._untold:
            news = self._untold[0]
            if isinstance(news, DisabledCredential):
                await store.credentials.set_aside(
                    *(news.provider, news.key, news.model, news.failure, news.reason, news.fingerprint),
                    *(news.probe_at, news.since, news.job_id),
                )
            else:
                await store.credentials.enable(news.provider, news.key, news.model)
            self._untold.popleft()
        rows, rotated = {}, set()
        for row in await store.credentials.listed():
            if await was_rotated(row):
                rotated.add((row.provider, row.key))
            else:
                rows[row.provider, row.key, row.model] = row
                self._forget_if_old(row)
        if not self._untold:
            for name in self._rows.keys() - rows.keys():  # enabled by hand, or answered: nothing speaks against it now
                self._standing(name).refused.clear()
            self._rows, self._rotated = rows, rotated

    def _standing(self, name: Name) -> CredentialTrust:
        while len(self._standings) > MOST_STANDINGS:
            del self._standings[next(iter(self._standings))]
        return self._standings[name]

    def _forget_if_old(self, row: DisabledCredential) -> None:
        due_at = row.probe_at if row.model != ALL_MODELS else None
        if due_at is not None and self._clock() - due_at > FORGOTTEN_AFTER_S:
            self._untold.append(_Back(row.provider, row.key, row.model))

    def _record(self, row: DisabledCredential) -> None:
        self._rows[row.provider, row.key, row.model] = row
        self._untold.append(row)
