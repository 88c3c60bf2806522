"""One of three keys is refused with a Retry-After: does the fleet honour it, and do the other two keys continue?

    python benchmarks/retry_after.py --redis-url URL [--hint 30] [--rate 1800] [--seconds 60] [--by-second]

The given Redis database is FLUSHED. Three workers call one provider with three keys, each with the given requests per
minute. Ten seconds after the first call, one call with one key gets a 429 with the hint. Printed: the time from the
refusal to the next call with that key, the number of calls with it in between that were not already in flight, and the
rate and longest gap of the other two keys meanwhile.
"""

import argparse
import json
from collections import Counter
from itertools import pairwise

from fleet_run import CALL, calls_after, chain, fleet, provider

REFUSED_AT_S = 10.0
UNDER_WAY_S = 0.05
"""Seconds. A call sent by another worker this soon after the refusal could not have known of it."""

KEYS = ("one", "two", "three")


def config(port: int, rate: int) -> str:
    keys = ", ".join(f'{{ name = "{key}", value = "env.BENCH_KEY_{key.upper()}" }}' for key in KEYS)
    return (
        f'[providers.trio]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/trio/v1"\n'
        f"requests_per_minute = {rate}\napi_keys = [{keys}]\n"
    )


def script(hint_s: float) -> str:
    fault = {"key": "one", "do": "429", "from_s": REFUSED_AT_S, "times": 1, "retry_after_s": hint_s}
    return json.dumps({"latency_s": 0.3, "faults": [fault]})


def report(calls: list[CALL], hint_s: float) -> str:
    refused = next((call[0] for call in calls if call[3] == "429"), None)
    if refused is None:
        return "the key was not called, so nothing was refused"
    later = [call[0] - refused for call in calls if call[2] == "one" and call[0] > refused]
    known = [at for at in later if at > UNDER_WAY_S]
    early = sum(at < hint_s for at in known)
    others = sorted(call[0] for call in calls if call[2] != "one" and refused - 1 <= call[0] < refused + hint_s)
    gap = max((b - a for a, b in pairwise(others)), default=float("inf"))
    return (
        f"hint {hint_s:g} s: the key's next call after {f'{known[0]:.2f} s' if known else 'no call'},"
        f" {early} calls before the hint's end, {len(later) - len(known)} more in flight at the refusal;"
        f" the others {len(others) / (hint_s + 1):.1f}/s meanwhile, longest gap {gap * 1000:.0f} ms"
    )


def by_second(calls: list[CALL]) -> str:
    of = Counter((int(call[0]), call[2]) for call in calls)
    last = int(max(call[0] for call in calls))
    return "\n".join(f"{at:>4} s  " + "  ".join(f"{key} {of[at, key]:>3}" for key in KEYS) for at in range(last + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--hint", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=1_800)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--by-second", action="store_true")
    arguments = parser.parse_args()
    jobs = int(len(KEYS) * arguments.rate / 60 * arguments.seconds * 1.2) + 1_000
    secrets = {f"BENCH_KEY_{key.upper()}": key for key in KEYS}
    with (
        provider("scripted_provider.py", script(arguments.hint)) as port,
        fleet(arguments.redis_url, config(port, arguments.rate), [(chain("trio/m"), jobs)], **secrets),
    ):
        calls = calls_after(port, arguments.seconds)
    print(report(calls, arguments.hint), flush=True)
    if arguments.by_second:
        print(by_second(calls), flush=True)


if __name__ == "__main__":
    main()
