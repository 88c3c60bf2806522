"""Received requests and their outcomes. Only the last four characters of keys are shown."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from understudy.worker.mock.calls import ReceivedCall


def mask(key: str) -> str:
    return f"…{key[-4:]}" if key else "none"


@dataclass(slots=True)
class Stats:
    """Counts since the start or the last reset. `outcome` is an HTTP status, or a word if there is none."""

    began: float = field(default_factory=time.time)
    in_flight: int = 0
    peak_in_flight: int = 0
    outcomes: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    tokens: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    prompts: Counter[bytes] = field(default_factory=Counter)

    def enter(self) -> None:
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1

    def count(self, call: ReceivedCall, outcome: str, failure: str) -> None:
        self.outcomes[call.provider, call.key, call.model, outcome, failure] += 1

    def answered(self, call: ReceivedCall, input_tokens: int, output_tokens: int) -> None:
        """A completion is being sent: from now on it is billed, whether or not it arrives."""
        self.count(call, "200", "")
        self.prompts[call.digest] += 1
        tokens = self.tokens[call.provider]
        tokens[0] += input_tokens
        tokens[1] += output_tokens

    def report(self, prompts: bool = False) -> dict[str, Any]:
        """The document of `GET /stats`; with `prompts`, completions per sha256 of the last user message."""
        providers: dict[str, dict[str, Any]] = {}
        for (provider, key, model, outcome, failure), count in sorted(self.outcomes.items()):
            entry = providers.setdefault(provider, _blank())
            entry["requests"] += count
            entry["answered"] += count if not failure else 0
            _add(entry["statuses"], outcome, count)
            _add(entry["models"], model, count)
            _add(entry["keys"].setdefault(mask(key), {}), outcome, count)
            if failure:
                _add(entry["failures"], failure, count)
        for provider, (read, written) in self.tokens.items():
            providers[provider] |= {"input_tokens": read, "output_tokens": written}
        report = {
            "since": self.began,
            "requests": sum(self.outcomes.values()),
            "answered": sum(entry["answered"] for entry in providers.values()),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "providers": providers,
        }
        if prompts:
            report["prompts"] = {digest.hex(): count for digest, count in self.prompts.items()}
        return report


def _blank() -> dict[str, Any]:
    counts: dict[str, Any] = {"requests": 0, "answered": 0, "input_tokens": 0, "output_tokens": 0}
    return counts | {"statuses": {}, "failures": {}, "models": {}, "keys": {}}


def _add(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count
