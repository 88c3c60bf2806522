"""A primary with random refusals, followed by two healthy steps: the duration of a batch, compared with a healthy
primary.

    python benchmarks/refusing_lead.py --redis-url URL [--jobs 3000] [--shares 0.4,1] [--patience 0,30] [--hints 0]
        [--statuses 429,503,529] [--rate 3000]

The given Redis database is FLUSHED. Three workers have the slots needed for the given calls per minute; each provider
could handle all of them. `--patience 30` is the default for batches. Printed: the time from the first call to the last
answer, that time relative to the same batch without refusals, and which providers answered.
"""

import argparse
import sys
import time
from collections import Counter

from fleet_run import CALL, WORKERS, ask, calls_after, chain, fleet, provider
from random_refusals import NOTHING_REFUSED, Case, random_cases, slots, with_options

STEPS = ("lead", "second", "third")
LONGEST_S = 900.0


def config(port: int) -> str:
    sections = (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/{name}/v1"\n' for name in STEPS
    )
    return "\n".join([*sections, "[worker]\nurgent_slots = 0\n"])


def run(arguments: argparse.Namespace, case: Case, patience_s: float) -> list[CALL]:
    """All calls of a batch, once all its jobs are answered."""
    steps = chain(*(f"{name}/m" for name in STEPS), patience_s=patience_s)
    each = max(round(slots(arguments.rate) / WORKERS), 1)
    with (
        provider("scripted_provider.py", case.script("lead", arguments.seed)) as port,
        fleet(arguments.redis_url, config(port), [(steps, arguments.jobs)], each),
    ):
        calls_after(port, 0.0)
        deadline = time.monotonic() + LONGEST_S
        while ask(port, "/count")["answered"] < arguments.jobs:
            if time.monotonic() > deadline:
                sys.exit(f"some jobs are not answered after {LONGEST_S:g} s")
            time.sleep(0.2)
        return calls_after(port, 0.0)


def took_s(calls: list[CALL]) -> float:
    return max(call[0] for call in calls if call[3] == "answered")


def report(case: Case, patience_s: float, calls: list[CALL], well_s: float) -> str:
    answered = Counter(call[1] for call in calls if call[3] == "answered")
    refused = sum(call[3] != "answered" for call in calls)
    who = ", ".join(f"{name} {answered[name]:,}" for name in STEPS)
    return (
        f"{case}, patience {patience_s:g} s: {took_s(calls):.1f} s, {took_s(calls) - well_s:+.1f} s,"
        f" {well_s / took_s(calls):.1%} of the rate without refusals; answered {who}; {refused:,} refused"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--jobs", type=int, default=3_000)
    parser.add_argument("--patience", default="0,30")
    with_options(parser).set_defaults(shares="0.4,1", hints="0", rate=3_000)
    arguments = parser.parse_args()
    for patience_s in map(float, arguments.patience.split(",")):
        well = run(arguments, NOTHING_REFUSED, patience_s)
        print(report(NOTHING_REFUSED, patience_s, well, took_s(well)), flush=True)
        for case in random_cases(arguments):
            print(report(case, patience_s, run(arguments, case, patience_s), took_s(well)), flush=True)


if __name__ == "__main__":
    main()
