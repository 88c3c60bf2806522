"""The deployments of this installation: which credentials a step may use now, and how each is reached.

A credential that only a person can mend is set aside for everybody; what this worker finds out goes to the ledger
with the next `share`, and what others found out comes back with it.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from models.catalog import ResolvedProvider, UnknownProvider, resolve_provider
from models.chain import Step
from models.deployments import NO_KEY, account_of, keys_of, limits_of
from models.failure import BLOCKING, Failure, FailureClass, Scope
from models.limit_state import KEPT
from models.secrets import SecretMissing, Secrets, fingerprint
from models.setaside import ALL_MODELS, SetAside
from models.settings import ApiKey, Settings
from models.store import Store
from worker.failing import Failing
from worker.limits import Candidate, Deployment, Grant, Limiter
from worker.providers.base import Adapter, Endpoint
from worker.providers.registry import adapter_for

log = logging.getLogger(__name__)

PROBE_EVERY_S = 900.0
"""How often one real job tries a credential that ran out of money, or one that seemed not to have a model."""

PROBED = frozenset({FailureClass.QUOTA, FailureClass.MODEL_MISSING})
"""What may mend without a word to us: money comes in, and a gateway that restarts answers 404 for a while."""

HARD_FAILURES = frozenset({FailureClass.CONNECT, FailureClass.TIMEOUT, FailureClass.SERVER})

NO_SECRET = ""
"""In place of a fingerprint: whatever secret is found later differs from it, so that a missing one heals by itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """How a deployment is called. `dialect` is its preset's name, `timeout_s` the total for one call.

    `on_probation`: the ledger says that this credential is set aside, and this call may prove that it works again.
    """

    adapter: Adapter
    endpoint: Endpoint
    dialect: str
    timeout_s: float
    on_probation: bool = False


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a step has no credential now: `quota` or `credential`, which a person can mend, or `model_missing`."""

    cls: FailureClass
    text: str

    @property
    def mendable(self) -> bool:
        return self.cls in BLOCKING


class Fleet:
    def __init__(self, settings: Settings, secrets: Secrets, clock: Callable[[], float], rng: Random) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._rng = rng
        self._aside: dict[tuple[str, str, str], SetAside] = {}
        self._rotated: set[tuple[str, str]] = set()
        self._untold: deque[SetAside | tuple[str, str]] = deque()  # set aside, or (provider, key) that is back
        self._failing: defaultdict[tuple[str, str], Failing] = defaultdict(Failing)  # by provider and model
        self._candidate = lru_cache(maxsize=10_000)(self._build_candidate)
        self._provider = lru_cache(maxsize=1_000)(self._find_provider)

    def usable(self, step: Step) -> list[Candidate]:
        """The step's credentials that are not set aside, in the order of the configuration."""
        provider = self._provider(step.provider)
        if provider is None:
            return []
        return [
            self._candidate(step.provider, step.model, key)
            for key in keys_of(provider)
            if not self._set_aside(step, key)
        ]

    async def ways(self, step: Step) -> dict[Candidate, Target]:
        """The usable credentials in the order in which to ask, by chance and weight, and how each is reached.

        A key whose reference leads nowhere is set aside until it leads somewhere.
        """
        usable = self.usable(step)
        provider = self._provider(step.provider)
        if provider is None or not usable:
            return {}
        weights = {key.name: key.weight for key in provider.api_keys}
        if len(usable) > 1:
            usable.sort(key=lambda each: self._rng.random() ** (1.0 / weights[each.deployment.key]), reverse=True)
        probe = self._probe(usable)
        usable.sort(key=lambda each: each is not probe)
        ways = {}
        for candidate in usable:
            try:
                ways[candidate] = await self._target(provider, candidate.deployment)
            except SecretMissing as missing:
                self._set_credential_aside(
                    candidate.deployment, ALL_MODELS, Failure(FailureClass.CREDENTIAL, str(missing)), seen=NO_SECRET
                )
        return ways

    def why_none(self, step: Step) -> Absence:
        """Why `ways` is empty: a person must mend a credential, or no credential has this model."""
        provider = self._provider(step.provider)
        if provider is None:
            return Absence(FailureClass.CREDENTIAL, f"{step}: the provider is no longer configured")
        keys = [key.name for key in provider.api_keys or (NO_KEY,)]
        rows = [self._aside[name] for key in keys if (name := (step.provider, key, ALL_MODELS)) in self._aside]
        if rows:
            text = f"{rows[0].failure} at {step.provider} (key {rows[0].key}): {rows[0].reason}"
            return Absence(rows[0].failure, text)
        rows = [self._aside[name] for key in keys if (name := (step.provider, key, step.model)) in self._aside]
        if rows:
            return Absence(FailureClass.MODEL_MISSING, f"no credential of {step.provider} has {step.model}")
        return Absence(FailureClass.CREDENTIAL, f"{step.provider} has no credential; give it one in the configuration")

    async def _target(self, provider: ResolvedProvider, deployment: Deployment) -> Target:
        key = next((key for key in provider.api_keys if key.name == deployment.key), None)
        secret = await self._secrets.resolve(provider.name, key) if key else None
        endpoint = Endpoint(provider.base_url, secret, provider.settings.headers, provider.settings.options)
        name = (deployment.provider, deployment.key)
        return Target(
            adapter_for(provider.kind),
            endpoint,
            provider.preset,
            provider.settings.timeout_s,
            on_probation=bool(self._rows(deployment)) or name in self._rotated,
        )

    async def learn(self, grant: Grant, target: Target, failure: Failure, limiter: Limiter, number: int) -> None:
        """Draw a failure's consequences for everybody: cool what it speaks of, or set a credential aside.

        `number` is what `begun` said of the call.
        """
        deployment, began_ms = grant.candidate.deployment, grant.start_ms
        reason = f"{failure.cls} at {deployment.provider}/{deployment.model}"
        if failure.cls is FailureClass.RATE_LIMIT:
            scope = failure.scope if failure.scope in (Scope.ACCOUNT, Scope.PROVIDER) else Scope.MODEL
            await limiter.cool(deployment, scope, failure.hint_s, reason, too_fast=not failure.per_day)
        elif failure.cls is FailureClass.OVERLOADED:
            await limiter.cool(deployment, Scope.PROVIDER, failure.hint_s, reason, began_ms=began_ms)
        elif failure.cls in BLOCKING:
            self._set_credential_aside(deployment, ALL_MODELS, failure, fingerprint(target.endpoint.secret or ""))
        elif failure.cls is FailureClass.MODEL_MISSING:
            seen = fingerprint(target.endpoint.secret or "")
            self._set_credential_aside(deployment, deployment.model, failure, seen)
        elif failure.cls in HARD_FAILURES:
            if self._failing[deployment.provider, deployment.model].saw_failure(number):
                await limiter.cool(deployment, Scope.PROVIDER, failure.hint_s, reason, began_ms=began_ms, probed=True)
        elif failure.cls is FailureClass.UNKNOWN:
            log.warning("%s, HTTP status %s: `understudy attempts` shows what it said", reason, failure.status)

    def begun(self, deployment: Deployment) -> int:
        """A call is being made. Returns its number, by which its end is known."""
        return self._failing[deployment.provider, deployment.model].begin()

    def answered(self, deployment: Deployment, target: Target, number: int) -> None:
        """A call was answered: the deployment works, and a credential that was on probation is back.

        Others may still answer what they were asked before the credential was set aside; that proves nothing.
        """
        self._failing[deployment.provider, deployment.model].saw_answer(number)
        if target.on_probation:
            name = (deployment.provider, deployment.key)
            rows = self._rows(deployment)
            for row in rows:
                del self._aside[row.provider, row.key, row.model]
            if rows:
                log.warning("The credential %s of %s answers again", deployment.key, deployment.provider)
            self._untold.append(name)

    async def share(self, store: Store) -> None:
        """Tell the ledger what this worker found out, and read what all found out."""
        while self._untold:
            news = self._untold[0]
            if isinstance(news, SetAside):
                await store.set_aside(
                    news.provider, news.key, news.model, news.failure, news.reason, news.fingerprint, news.probe_at
                )
            else:
                await store.enable(*news)
            self._untold.popleft()
        aside, rotated = {}, set()
        for row in await store.set_aside_list():
            if await self._was_rotated(row):
                rotated.add((row.provider, row.key))
            else:
                aside[row.provider, row.key, row.model] = row
        if not self._untold:
            self._aside, self._rotated = aside, rotated

    async def _was_rotated(self, row: SetAside) -> bool:
        """Whether the credential has another secret now than the one that was refused."""
        provider = self._provider(row.provider)
        key = next((key for key in provider.api_keys if key.name == row.key), None) if provider else None
        if key is None:
            return False
        try:
            return fingerprint(await self._secrets.resolve(row.provider, key)) != row.fingerprint
        except SecretMissing:
            return False

    def _find_provider(self, name: str) -> ResolvedProvider | None:
        """None when a running batch was accepted with a provider that today's configuration does not have."""
        try:
            return resolve_provider(self._settings, name)
        except UnknownProvider:
            return None

    def _set_credential_aside(self, deployment: Deployment, model: str, failure: Failure, seen: str) -> None:
        """`seen` is the fingerprint of the secret that was refused: with another one the credential is tried again."""
        now = self._clock()
        row = SetAside(
            provider=deployment.provider,
            key=deployment.key,
            model=model,
            failure=failure.cls,
            reason=failure.message,
            fingerprint=seen,
            since=now,
            probe_at=now + PROBE_EVERY_S if failure.cls in PROBED else None,
        )
        name = (row.provider, row.key, row.model)
        if name not in self._aside:
            # The provider's own words stay in the ledger: they may quote what it was sent.
            what = f"for {model}" if model else "for all models"
            log.warning("Key %s of %s is set aside %s: %s", row.key, row.provider, what, row.failure)
        self._aside[name] = row
        self._untold.append(row)

    def _set_aside(self, step: Step, key: ApiKey) -> bool:
        rows = self._rows(self._candidate(step.provider, step.model, key).deployment)
        return any(row.forbids(step.model, self._clock()) for row in rows)

    def _rows(self, deployment: Deployment) -> list[SetAside]:
        """Why this deployment's credential is set aside: for all models, for this one, or not at all."""
        names = [(deployment.provider, deployment.key, model) for model in (ALL_MODELS, deployment.model)]
        return [self._aside[name] for name in names if name in self._aside]

    def _probe(self, usable: Iterable[Candidate]) -> Candidate | None:
        """The credential that is usable though it is set aside: its probe is due, and this job is the probe.

        Nobody else probes it until the next one is due.
        """
        for candidate in usable:
            rows = self._rows(candidate.deployment)
            for row in rows:
                later = replace(row, probe_at=self._clock() + PROBE_EVERY_S)
                self._aside[row.provider, row.key, row.model] = later
                self._untold.append(later)
            if rows:
                return candidate
        return None

    def _build_candidate(self, provider_name: str, model: str, key: ApiKey) -> Candidate:
        account = account_of(provider_name, key)
        limits = limits_of(self._settings.providers[provider_name], model, key)
        return Candidate(
            Deployment(provider_name, model, key.name, account),
            requests_per_minute=_kept_to(limits.requests_per_minute),
            tokens_per_minute=_kept_to(limits.tokens_per_minute),
            max_in_flight=limits.max_in_flight,
            requests_per_day=limits.requests_per_day,
            tokens_per_day=limits.tokens_per_day,
        )


def _kept_to(limit: int | None) -> float | None:
    return None if limit is None else limit * KEPT
