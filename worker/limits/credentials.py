"""The credential pool: which credentials a step may use now, and how each deployment is called.

A credential that only a person can fix is disabled for all workers (`asides`) once there is enough evidence
(`standing`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from understudy.models.config.catalog import (
    NO_KEY,
    ResolvedProvider,
    UnknownProvider,
    account_of,
    keys_of,
    limits_of,
    resolve_provider,
)
from understudy.models.config.provider_settings import ApiKey
from understudy.models.config.secrets import SecretMissing, Secrets, fingerprint
from understudy.models.config.settings import Settings
from understudy.models.disabled import ALL_MODELS, DisabledCredential
from understudy.models.failure import Failure, FailureClass, Scope
from understudy.models.limits.constants import USED_SHARE
from understudy.models.routing.chain import Step
from understudy.models.store import Store
from understudy.worker.bounded_mapping import Latest
from understudy.worker.limits.breaker import HardFailures
from understudy.worker.limits.disabled_credentials import DisabledCredentials
from understudy.worker.limits.grants import Candidate, Deployment, Grant
from understudy.worker.limits.limiter import Limiter
from understudy.worker.providers.base import Adapter, Endpoint
from understudy.worker.providers.registry import adapter_for

log = logging.getLogger(__name__)

NO_SECRET = ""
"""In place of a fingerprint: any secret found later differs from it, so that a missing one heals by itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """How a deployment is called. `dialect` is its preset's name, `timeout_s` the total for one call.

    `on_probation`: the ledger has this credential as disabled, and this call may prove that it works again. `asked_at`:
    when the call was prepared.
    """

    adapter: Adapter
    endpoint: Endpoint
    dialect: str
    timeout_s: float
    on_probation: bool = False
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a step has no usable credential: `quota` or `credential`, which a person can fix, or `model_missing`.

    `until`: when one of them is probed, if the evidence that the model is missing is weak.
    """

    cls: FailureClass
    text: str
    until: float | None = None

    @property
    def mendable(self) -> bool:
        return self.cls.traits.blocks


class CredentialPool:
    def __init__(self, settings: Settings, secrets: Secrets, clock: Callable[[], float], rng: Random) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._rng = rng
        self._asides = DisabledCredentials(clock)
        self._failing: Latest[tuple[str, str], HardFailures] = Latest()  # by provider and model
        self._candidate = lru_cache(maxsize=10_000)(self._build_candidate)
        self._provider = lru_cache(maxsize=1_000)(self._find_provider)

    def usable(self, step: Step, *, even_missing: bool = False) -> list[Candidate]:
        """The step's credentials that are not disabled, in the order of the configuration. `even_missing`: including
        those disabled because they lack the model."""
        provider = self._provider(step.provider)
        candidates = [self._candidate(step.provider, step.model, key) for key in keys_of(provider)] if provider else []
        return [each for each in candidates if not self._asides.forbid(each.deployment, even_missing=even_missing)]

    def is_probed(self, step: Step) -> bool:
        """Whether the step has usable credentials only because their probe is due."""
        usable = self.usable(step)
        return bool(usable) and all(self._asides.of(each.deployment) for each in usable)

    async def ways(self, step: Step, *, even_missing: bool = False) -> dict[Candidate, Target]:
        """The usable credentials in the order in which to try them (random, weighted), and how each is called.

        A key whose reference has no value is disabled until it has one.
        """
        provider = self._provider(step.provider)
        usable = self.usable(step, even_missing=even_missing)
        if provider is None or not usable:
            return {}
        weights = {key.name: key.weight for key in provider.api_keys}
        if len(usable) > 1:
            usable.sort(key=lambda each: self._rng.random() ** (1.0 / weights[each.deployment.key]), reverse=True)
        probe = self._asides.probe(each.deployment for each in usable)
        usable.sort(key=lambda each: each.deployment != probe)
        ways = {}
        for candidate in usable:
            try:
                ways[candidate] = await self._target(provider, candidate.deployment)
            except SecretMissing as missing:
                failure = Failure(FailureClass.CREDENTIAL, str(missing))
                self._asides.put(candidate.deployment, ALL_MODELS, failure, seen=NO_SECRET)
        return ways

    def why_none(self, step: Step) -> Absence:
        """Why `ways` is empty: a person must fix a credential, or no credential has this model."""
        provider = self._provider(step.provider)
        if provider is None:
            return Absence(FailureClass.CREDENTIAL, f"{step}: the provider is no longer configured")
        keys = [key.name for key in provider.api_keys or (NO_KEY,)]
        rows = self._asides.find(step.provider, keys, ALL_MODELS)
        if rows:
            text = f"{rows[0].failure} at {step.provider} (key {rows[0].key}): {rows[0].reason}"
            return Absence(rows[0].failure, text)
        rows = self._asides.find(step.provider, keys, step.model)
        if rows:
            until = min((row.probe_at for row in rows if row.is_weak and row.probe_at is not None), default=None)
            return Absence(FailureClass.MODEL_MISSING, f"no credential of {step.provider} has {step.model}", until)
        return Absence(FailureClass.CREDENTIAL, f"{step.provider} has no credential; configure one")

    async def _target(self, provider: ResolvedProvider, deployment: Deployment) -> Target:
        key = next((key for key in provider.api_keys if key.name == deployment.key), None)
        secret = await self._secrets.resolve(provider.name, key) if key else None
        endpoint = Endpoint(provider.base_url, secret, provider.settings.headers, provider.settings.options)
        return Target(
            adapter_for(provider.kind),
            endpoint,
            provider.preset,
            provider.settings.timeout_s,
            on_probation=self._asides.is_on_probation(deployment),
            asked_at=self._clock(),
        )

    def weigh(self, deployment: Deployment, target: Target, failure: Failure, job_id: str, *, answers: bool) -> None:
        """Disable the credential that was rejected for this job, if there is enough evidence.

        `answers`: the step was answered recently elsewhere in the fleet. With several keys that may have been another
        one.
        """
        if failure.cls.traits.about_credential:
            provider = self._provider(deployment.provider)
            alone = provider is not None and len(keys_of(provider)) == 1
            seen = fingerprint(target.endpoint.secret or "")
            self._asides.refused(deployment, failure, seen, job_id, answers=answers and alone)

    async def learn(self, grant: Grant, failure: Failure, limiter: Limiter, number: int, tenant: str) -> None:
        """Apply a failure's consequences to the limits: cool its scope. `number` is from `begun`, `tenant` the owner
        of the call."""
        deployment, began_ms = grant.candidate.deployment, grant.start_ms
        reason = f"{failure.cls} at {deployment.provider}/{deployment.model}"
        if failure.cls is FailureClass.RATE_LIMIT:
            scope = failure.scope if failure.scope in (Scope.ACCOUNT, Scope.PROVIDER) else Scope.MODEL
            if failure.per_day:
                await limiter.cool(deployment, scope, failure.hint_s, reason)
            else:
                await limiter.refused(grant, scope, failure.hint_s, reason)
        elif failure.cls is FailureClass.OVERLOADED:
            await limiter.refused(grant, Scope.PROVIDER, failure.hint_s, reason)
        elif failure.cls.traits.trips_breaker:
            if self._failures_of(deployment).saw_failure(number, tenant, self._clock()):
                await limiter.cool(deployment, Scope.PROVIDER, failure.hint_s, reason, began_ms=began_ms, probed=True)
        elif failure.cls.traits.about_request:
            await limiter.answered(grant)
        elif failure.cls is FailureClass.UNKNOWN:
            log.warning("%s, HTTP status %s: see `understudy attempts` for its message", reason, failure.status)

    def begun(self, deployment: Deployment) -> int:
        """A call is being made. Returns its number, which identifies it when it ends."""
        return self._failures_of(deployment).begin()

    def answered(self, deployment: Deployment, target: Target, number: int, tenant: str) -> None:
        """A call was answered: the deployment works, and so does its credential."""
        self._failures_of(deployment).saw_answer(number, tenant, self._clock())
        self._asides.answered(deployment, target.asked_at, on_probation=target.on_probation)

    def _failures_of(self, deployment: Deployment) -> HardFailures:
        name = (deployment.provider, deployment.model)
        found = self._failing[name] = self._failing.get(name) or HardFailures()
        return found

    async def share(self, store: Store) -> None:
        """Write this worker's findings about credentials to the ledger, and read those of all."""
        await self._asides.share(store, self._was_rotated)

    async def _was_rotated(self, row: DisabledCredential) -> bool:
        """Whether the credential's secret differs from the rejected one."""
        provider = self._provider(row.provider)
        key = next((key for key in provider.api_keys if key.name == row.key), None) if provider else None
        if key is None:
            return False
        try:
            return fingerprint(await self._secrets.resolve(row.provider, key)) != row.fingerprint
        except SecretMissing:
            return False

    def _find_provider(self, name: str) -> ResolvedProvider | None:
        """None if a running batch was accepted with a provider that is no longer configured."""
        try:
            return resolve_provider(self._settings, name)
        except UnknownProvider:
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
    return None if limit is None else limit * USED_SHARE
