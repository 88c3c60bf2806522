"""The deployments of this installation: which credentials a step may use now, and how each is reached.

A credential that only a person can mend is set aside for everybody; what this worker finds out goes to the ledger
with the next `share`, and what others found out comes back with it.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from models.catalog import ResolvedProvider, UnknownProvider, resolve_provider
from models.chain import Step
from models.failure import Failure, FailureClass, Scope
from models.secrets import SecretMissing, Secrets, fingerprint
from models.setaside import ALL_MODELS, SetAside
from models.settings import ApiKey, Limits, Provider, Settings
from models.store import Store
from worker.limits import Candidate, Deployment, Limiter
from worker.providers.base import Adapter, Endpoint
from worker.providers.registry import adapter_for

log = logging.getLogger(__name__)

PROBE_EVERY_S = 900.0
"""How often one real job tries a credential that ran out of money."""

HARD_FAILURES = frozenset({FailureClass.CONNECT, FailureClass.TIMEOUT, FailureClass.SERVER})
BREAK_AFTER = 5
"""So many hard failures of a deployment without an answer between open its breaker, if they are also half of the calls
begun since the last answer: failures come back sooner than answers, so the first to come back prove little."""

NO_KEY = ApiKey(name="none", value="env.NONE")
"""Stands for a server that asks for no key."""


@dataclass(frozen=True, slots=True)
class Target:
    """How a deployment is called. `dialect` is its preset's name, `timeout_s` the total for one call."""

    adapter: Adapter
    endpoint: Endpoint
    dialect: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a step has no credential now, and whether a person can mend it."""

    text: str
    mendable: bool


class Fleet:
    def __init__(self, settings: Settings, secrets: Secrets, clock: Callable[[], float], rng: Random) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._rng = rng
        self._aside: dict[tuple[str, str, str], SetAside] = {}
        self._unshared: list[SetAside] = []
        self._mended: list[tuple[str, str]] = []
        self._secret_seen: dict[tuple[str, str], str] = {}
        self._in_a_row: Counter[tuple[str, str]] = Counter()
        self._begun: Counter[tuple[str, str]] = Counter()
        self._candidate = lru_cache(maxsize=10_000)(self._build_candidate)
        self._provider = lru_cache(maxsize=1_000)(self._find_provider)

    def usable(self, step: Step) -> list[Candidate]:
        """The step's credentials that are not set aside, in the order of the configuration."""
        provider = self._provider(step.provider)
        if provider is None:
            return []
        keys = provider.api_keys or (() if provider.needs_key else (NO_KEY,))
        return [self._candidate(step.provider, step.model, key) for key in keys if not self._set_aside(step, key)]

    async def ways(self, step: Step) -> dict[Candidate, Target]:
        """The usable credentials in the order in which to ask, by chance and weight, and how each is reached.

        A key whose reference leads nowhere is set aside like one that was refused.
        """
        usable = self.usable(step)
        self._note_probes(step)
        provider = self._provider(step.provider)
        if provider is not None and len(usable) > 1:
            weights = {key.name: key.weight for key in provider.api_keys}
            usable.sort(key=lambda each: self._rng.random() ** (1.0 / weights[each.deployment.key]), reverse=True)
        ways = {}
        for candidate in usable:
            try:
                ways[candidate] = await self._target(candidate.deployment)
            except SecretMissing as missing:
                failure = Failure(FailureClass.CREDENTIAL, str(missing))
                self._set_credential_aside(candidate.deployment, ALL_MODELS, failure)
        return ways

    def why_none(self, step: Step) -> Absence:
        """Why `ways` is empty: a person must mend a credential, or no credential has this model."""
        if self._provider(step.provider) is None:
            return Absence(f"{step}: the provider is no longer configured", mendable=True)
        rows = [row for row in self._aside.values() if row.provider == step.provider]
        credentials = [row for row in rows if row.model == ALL_MODELS]
        if credentials:
            row = credentials[0]
            return Absence(f"{row.failure} at {row.provider} (key {row.key}): {row.reason}", mendable=True)
        reason = next((row.reason for row in rows if row.model == step.model), "no credential is configured")
        return Absence(f"model_missing at {step}: {reason}", mendable=False)

    async def _target(self, deployment: Deployment) -> Target:
        provider = self._provider(deployment.provider)
        if provider is None:
            raise UnknownProvider(f"provider '{deployment.provider}' is no longer configured")
        key = next((key for key in provider.api_keys if key.name == deployment.key), None)
        secret = await self._secrets.resolve(provider.name, key) if key else None
        self._secret_seen[provider.name, deployment.key] = secret or ""
        endpoint = Endpoint(provider.base_url, secret, provider.settings.headers, provider.settings.options)
        return Target(adapter_for(provider.kind), endpoint, provider.preset, provider.settings.timeout_s)

    async def learn(self, deployment: Deployment, failure: Failure, limiter: Limiter) -> None:
        """Draw a failure's consequences for everybody: cool what it speaks of, or set a credential aside."""
        reason = f"{failure.cls} at {deployment.provider}/{deployment.model}"
        if failure.cls is FailureClass.RATE_LIMIT:
            scope = failure.scope if failure.scope in (Scope.ACCOUNT, Scope.PROVIDER) else Scope.MODEL
            await limiter.cool(deployment, scope, failure.hint_s, reason, too_fast=not failure.per_day)
        elif failure.cls is FailureClass.OVERLOADED:
            await limiter.cool(deployment, Scope.PROVIDER, failure.hint_s, reason)
        elif failure.cls in (FailureClass.QUOTA, FailureClass.CREDENTIAL):
            self._set_credential_aside(deployment, ALL_MODELS, failure)
        elif failure.cls is FailureClass.MODEL_MISSING:
            self._set_credential_aside(deployment, deployment.model, failure)
        elif failure.cls in HARD_FAILURES:
            name = (deployment.provider, deployment.model)
            self._in_a_row[name] += 1
            if self._in_a_row[name] >= max(BREAK_AFTER, self._begun[name] / 2):
                await limiter.cool(deployment, Scope.PROVIDER, failure.hint_s, reason)

    def begun(self, deployment: Deployment) -> None:
        """A call is being made."""
        self._begun[deployment.provider, deployment.model] += 1

    def answered(self, deployment: Deployment) -> None:
        """A call was answered: the deployment works, and a credential that was being probed is back."""
        for counts in (self._in_a_row, self._begun):
            counts.pop((deployment.provider, deployment.model), None)
        if self._aside.pop((deployment.provider, deployment.key, ALL_MODELS), None):
            self._mended.append((deployment.provider, deployment.key))
            log.warning("The credential %s of %s answers again", deployment.key, deployment.provider)

    async def share(self, store: Store) -> None:
        """Tell the ledger what this worker found out, and read what all found out."""
        while self._mended:
            await store.enable(*self._mended[-1])
            self._mended.pop()
        while self._unshared:
            row = self._unshared[-1]
            await store.set_aside(
                row.provider, row.key, row.model, row.failure, row.reason, row.fingerprint, row.probe_at
            )
            self._unshared.pop()
        aside = {}
        for row in await store.set_aside_list():
            if not await self._was_rotated(row):
                aside[row.provider, row.key, row.model] = row
        if not self._unshared:
            self._aside = aside

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

    def _set_credential_aside(self, deployment: Deployment, model: str, failure: Failure) -> None:
        now = self._clock()
        row = SetAside(
            provider=deployment.provider,
            key=deployment.key,
            model=model,
            failure=failure.cls,
            reason=failure.message,
            fingerprint=fingerprint(self._secret_seen.get((deployment.provider, deployment.key), "")),
            since=now,
            probe_at=now + PROBE_EVERY_S if failure.cls is FailureClass.QUOTA else None,
        )
        name = (row.provider, row.key, row.model)
        if name not in self._aside:
            what = f"for {model}" if model else "for all models"
            log.warning("Credential %s of %s is set aside %s: %s", row.key, row.provider, what, row.reason)
        self._aside[name] = row
        self._unshared.append(row)

    def _set_aside(self, step: Step, key: ApiKey) -> bool:
        rows = [self._aside.get((step.provider, key.name, model)) for model in (ALL_MODELS, step.model)]
        if not any(rows):
            return False
        return any(row.forbids(step.model, self._clock()) for row in rows if row is not None)

    def _note_probes(self, step: Step) -> None:
        """The job that gets a credential whose probe is due is its probe; the next one is due later."""
        now = self._clock()
        for name, row in self._aside.items():
            if row.provider == step.provider and row.probe_at is not None and row.probe_at <= now:
                self._aside[name] = replace(row, probe_at=now + PROBE_EVERY_S)

    def _build_candidate(self, provider_name: str, model: str, key: ApiKey) -> Candidate:
        account = f"{provider_name}:{key.account or key.name}"
        limits = _limits(self._settings.providers[provider_name], model, key.account or key.name)
        return Candidate(
            Deployment(provider_name, model, key.name, account),
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            max_in_flight=limits.max_in_flight,
        )


def _limits(provider: Provider, model: str, account: str) -> Limits:
    """The most specific words win, field by field: model and account, account, model, the provider's own."""
    matching = [
        override
        for override in provider.limits
        if override.model in (None, model) and override.account in (None, account)
    ]
    matching.sort(key=lambda override: (override.account is not None, override.model is not None), reverse=True)
    fields = ("requests_per_minute", "tokens_per_minute", "max_in_flight")
    sources: list[Limits] = [*matching, provider]
    return Limits(
        **{
            name: next((value for source in sources if (value := getattr(source, name)) is not None), None)
            for name in fields
        }
    )
