"""The worker's part of `understudy check`, in a separate process: one JSON line per deployment.

A deployment is a key of a provider with one of the models that the configuration names. With `--live` each is sent one
tiny completion; without it nothing leaves this machine (but `cmd.` references are run). No line contains a secret: a
key is shown by its last characters.
"""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson

from understudy.models.config.catalog import NO_KEY, ResolvedProvider, limits_of
from understudy.models.config.secrets import SecretMissing, Secrets, masked, shown
from understudy.models.config.settings import Settings, SettingsError, load_settings
from understudy.models.costs.pricing import Pricing
from understudy.models.failure import Failure
from understudy.models.request.wire import RequestError
from understudy.models.routing.chain import Step
from understudy.models.routing.model_names import named_deployments
from understudy.worker.job.exchange import exchange
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.grants import Candidate
from understudy.worker.providers.base import Call, CannotExpress, Usage
from understudy.worker.providers.client import ProviderClient

TINY = {"messages": [{"role": "user", "content": "Say OK."}], "max_tokens": 16}
AT_ONCE = 8
LIVE_TIMEOUT_S = 60.0
SAMPLE_TOKENS = 1_000
"""Prices are calculated for a call of this many tokens: tiers begin far above."""


class Check:
    def __init__(self, settings: Settings, client: ProviderClient, live: bool) -> None:
        self._settings = settings
        self._client = client
        self._live = live
        self._secrets = Secrets()
        self._fleet = CredentialPool(settings, self._secrets, time.time, Random())
        self._pricing = Pricing(settings)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Write a line for each deployment as soon as its result is known."""
        await asyncio.gather(*(self._report(provider, model) for provider, model in named_deployments(self._settings)))

    async def _report(self, provider: ResolvedProvider, model: str | None) -> None:
        row: dict[str, Any] = {"provider": provider.name, "protocol": provider.kind, "base_url": provider.base_url}
        row |= {"model": model, **self._prices(provider, model)}
        usable = self._fleet.usable(Step(provider=provider.name, model=model or ""))
        if not usable:
            _write({**row, "problem": f"provider '{provider.name}' needs a key; set api_keys under its section"})
        for candidate in usable:
            _write({**row, **await self._of_key(provider, model, candidate)})

    async def _of_key(self, provider: ResolvedProvider, model: str | None, candidate: Candidate) -> dict[str, Any]:
        key = next((key for key in provider.api_keys if key.name == candidate.deployment.key), None)
        row: dict[str, Any] = {
            "key": key.name if key else None,
            "reference": shown(key.value) if key else None,
            "account": candidate.deployment.account,
            **limits_of(provider.settings, model or "", key or NO_KEY).model_dump(),
        }
        try:
            secret = await self._secrets.resolve(provider.name, key) if key else None
        except SecretMissing as missing:
            return {**row, "problem": str(missing)}
        row["secret"] = masked(secret) if secret else None
        if self._live and model is not None:
            async with self._slots:
                row["live"] = await self._ask(Step(provider=provider.name, model=model), candidate)
        return row

    def _prices(self, provider: ResolvedProvider, model: str | None) -> dict[str, float | None]:
        """US dollars per million tokens; None without a known price."""
        if model is None:
            return {"input_usd": None, "output_usd": None}
        samples = {
            "input_usd": Usage(input_tokens=SAMPLE_TOKENS),
            "output_usd": Usage(output_tokens=SAMPLE_TOKENS),
        }
        costs = {name: self._pricing.cost_usd(provider.name, model, usage) for name, usage in samples.items()}
        return {name: None if cost is None else cost * 1_000_000 / SAMPLE_TOKENS for name, cost in costs.items()}

    async def _ask(self, step: Step, candidate: Candidate) -> dict[str, Any]:
        """One tiny call: how long it took, and its error, if any."""
        target = (await self._fleet.ways(step))[candidate]
        call = Call(target.dialect, step.model, TINY)
        began = time.monotonic()
        try:
            request = target.adapter.request(call, target.endpoint)
            target = replace(target, timeout_s=min(target.timeout_s, LIVE_TIMEOUT_S))
            came = await exchange(self._client, target, call, request, time.time, asyncio.to_thread)
        except CannotExpress as misfit:
            return {"answered": False, "failure": "bad_request", "message": str(misfit)}
        if isinstance(came.reply, Failure):
            return {"answered": False, "failure": came.reply.cls, "message": came.reply.message}
        return {"answered": True, "latency_ms": round((time.monotonic() - began) * 1000)}


def _write(row: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


async def _run(settings: Settings, live: bool) -> None:
    async with ProviderClient(max_connections=AT_ONCE) as client:
        await Check(settings, client, live).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="understudy check")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--live", action="store_true")
    options = parser.parse_args()
    try:
        asyncio.run(_run(load_settings(options.config, os.environ), options.live))
    except (SettingsError, RequestError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
