"""Random refusals, whatever the rate: the shares to test, and the rate that acceptance alone would allow."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product

from fleet_run import CALL, WORKERS, calls_after, provider

LATENCY_S = 0.3
REFUSED_AFTER_S = 0.01
WINDOW_S = 10


@dataclass(frozen=True)
class Case:
    """`share` of the calls is refused with `status`; `hint_s` None: no Retry-After."""

    share: float
    hint_s: float | None = None
    status: int = 429

    def __str__(self) -> str:
        hint = "no hint" if self.hint_s is None else f"hint {self.hint_s:g} s"
        return f"random {self.share:6.1%} with {self.status}, {hint}"

    def script(self, provider: str, seed: int) -> str:
        """The fault for `scripted_provider.py`; all other calls are answered."""
        fault = {"provider": provider, "do": str(self.status), "share": self.share, "retry_after_s": self.hint_s}
        return json.dumps({"latency_s": LATENCY_S, "refused_after_s": REFUSED_AFTER_S, "seed": seed, "faults": [fault]})


NOTHING_REFUSED = Case(0.0)


def with_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--shares", default="0.01,0.03,0.1,0.2,0.4,0.6", help="with --servers random")
    parser.add_argument("--hints", default="0,2", help="seconds; 0: no Retry-After")
    parser.add_argument("--statuses", default="429")
    parser.add_argument("--rate", type=float, default=6_000, help="calls a minute of all slots if nothing is refused")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def random_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    statuses, hints = map(int, arguments.statuses.split(",")), map(float, arguments.hints.split(","))
    for status, hint_s, share in product(statuses, hints, map(float, arguments.shares.split(","))):
        yield Case(share, hint_s or None, status)


def slots(rate: float) -> int:
    """The slots needed for this rate of calls per minute without refusals."""
    return max(round(rate / 60 * LATENCY_S), 1)


def allowed(in_slots: int, pause_s: float, share: float) -> float:
    """Answers per second if every refused call were repeated at once. `pause_s`: between consecutive calls."""
    refusals = share / (1 - share)
    return in_slots / (LATENCY_S + pause_s + refusals * (REFUSED_AFTER_S + pause_s))


def pause_s(in_slots: int, accepted: list[int]) -> float:
    """The time a slot loses between two calls, from a run without refusals; its first window is the start-up."""
    settled = accepted[1:] or accepted
    return max(in_slots * WINDOW_S * len(settled) / max(sum(settled), 1) - LATENCY_S, 0.0)


def report(case: Case, accepted: list[int], calls: int, possible: float) -> str:
    """`accepted`: calls in each window; `possible`: the rate that acceptance allows."""
    rate, each = sum(accepted) / len(accepted) / WINDOW_S, ", ".join(f"{n / WINDOW_S / possible:.0%}" for n in accepted)
    return (
        f"{case}: {rate:5.1f}/s accepted of the {possible:.1f}/s that acceptance allows: {rate / possible:6.1%}"
        f" ({each} in each {WINDOW_S} s), {1 - sum(accepted) / max(calls, 1):5.1%} of {calls:,} calls refused"
    )


def accepted_by_window(calls: list[CALL], seconds: float) -> tuple[list[int], int]:
    """From the calls of a scripted provider: the accepted calls of each full window, and the number of all calls."""
    windows = int(seconds) // WINDOW_S
    inside = [call for call in calls if call[0] < windows * WINDOW_S]
    accepted = [0] * windows
    for at_s, _, _, came in inside:
        accepted[int(at_s // WINDOW_S)] += came == "answered"
    return accepted, len(inside)


def measure(
    arguments: argparse.Namespace, started: Callable[[str, int], AbstractContextManager[object]], name: str = ""
) -> None:
    """Print a line for each case, after one without refusals that measures the speed of the slots.

    `started` runs WORKERS processes that call a base URL with the given number of slots each.
    """
    each, lost_s = max(round(slots(arguments.rate) / WORKERS), 1), 0.0
    for case in (NOTHING_REFUSED, *random_cases(arguments)):
        with provider("scripted_provider.py", case.script("lead", arguments.seed)) as port:
            with started(f"http://127.0.0.1:{port}/lead/v1", each):
                calls = calls_after(port, arguments.seconds)
        accepted, made = accepted_by_window(calls, arguments.seconds)
        lost_s = lost_s if case.share else pause_s(each * WORKERS, accepted)
        print(name + report(case, accepted, made, allowed(each * WORKERS, lost_s, case.share)), flush=True)
