"""How well limits are used: three workers on one Redis and one ledger, and a provider that enforces its limit strictly.

    python benchmarks/limits.py --redis-url URL [--seconds 120] [--limits 60,600,6000]
        [--known configured,headers,neither] [--servers bucket,fixed,sliding] [--tokens]
    python benchmarks/limits.py --redis-url URL --servers random [--seconds 120] [--rate 6000]
        [--shares 0.01,0.03,0.1,0.2,0.4,0.6] [--hints 0,2] [--statuses 429,503,529] [--seed 1]

The given Redis database is FLUSHED. Printed for each: accepted / (burst + rate × time), and the share of all calls
answered with 429. The burst is a second's worth for every kind of server. With --tokens the limit counts tokens (the
limit × 1,000), with prompts of 25 to 4,000 tokens, answers of 40, and max_tokens 2,000; the printed use then refers to
tokens. `random` refuses a share of the calls whatever the rate, with or without (0) a hint. Printed is the number of
accepted calls, relative to what the same slots would achieve if every refused call were repeated at once; a first run
without refusals measures the speed of the slots. Time counts from the first call. Trust the ratios: a busy machine
starts its workers late and slowly.
"""

import argparse
from contextlib import AbstractContextManager

from fleet_run import TOKENS_A_CALL, all_sizes, cases, chain, command_line, counts_after, fleet, one_size, provider
from random_refusals import measure as measure_random
from random_refusals import with_options


def config_text(port: int, limit: int, known: str, tokens: bool) -> str:
    name = "tokens_per_minute" if tokens else "requests_per_minute"
    configured = f"{name} = {limit}\n" if known == "configured" else ""
    return f'[providers.strict]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n{configured}'


def measure(arguments: argparse.Namespace, kind: str, limit: int, known: str) -> None:
    seconds, tokens = arguments.seconds, arguments.tokens
    allowed = limit * TOKENS_A_CALL if tokens else limit
    numbers = (0, allowed) if tokens else (allowed, 0)
    enough = int(limit / 60 * (seconds + 10) * 3) + 3_000
    with provider("strict_provider.py", kind, *numbers, 0 if known == "neither" else 1) as port:
        config, requests = config_text(port, allowed, known, tokens), all_sizes if tokens else one_size
        with fleet(arguments.redis_url, config, [(chain("strict/m"), enough)], requests=requests):
            counts = counts_after(port, seconds)
    offered = allowed / 60 * (counts["seconds"] + 1)
    calls = counts["accepted"] + counts["refused"]
    used = (counts["tokens"] if tokens else counts["accepted"]) / offered
    unit = "tokens" if tokens else "requests"
    print(
        f"{kind:>8} {allowed:>9,} {unit}/min, {known:<10} {counts['seconds']:.0f} s: {used:6.1%} used,"
        f" {counts['refused'] / max(calls, 1):5.1%} of {calls:,.0f} calls refused",
        flush=True,
    )


def by_chance(arguments: argparse.Namespace) -> None:
    jobs = int(arguments.rate / 60 * (arguments.seconds + 10) * 1.5) + 1_000

    def started(base_url: str, slots: int) -> AbstractContextManager[object]:
        config = f'[providers.lead]\nkind = "openai"\nbase_url = "{base_url}"\n[worker]\nurgent_slots = 0\n'
        return fleet(arguments.redis_url, config, [(chain("lead/m"), jobs)], slots)

    measure_random(arguments, started)


def main() -> None:
    arguments = with_options(command_line(__doc__)).parse_args()
    if arguments.servers == "random":
        by_chance(arguments)
        return
    for kind, limit, known in cases(arguments):
        measure(arguments, kind, limit, known)


if __name__ == "__main__":
    main()
