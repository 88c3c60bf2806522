"""A primary that fails hard for 20 s in the middle of a run: wasted calls, and the time until it is used again.

    python benchmarks/failing_lead.py --redis-url URL [--patience 10,0] [--seconds 90] [--rate 6000] [--first 500,stall]

The given Redis database is FLUSHED. Three workers run a chain of two providers with the given requests per minute.
After 35 s the primary (`lead`) answers 500 for 10 s, then does not answer for 10 s (the caller's timeout is 10 s), then
recovers. Printed for each patience: failed calls to the primary, their share of all calls of the run, the primary's
share before, and the time after its recovery until it has 80% of that share in each of three consecutive seconds.
"""

import argparse
import json
from collections import Counter

from fleet_run import CALL, calls_after, chain, fleet, provider

FAILS_AT_S = 35.0
FAILS_FOR_S = 20.0
TIMEOUT_S = 10.0
BACK = 0.8
SETTLED_S = 3


def script(first: str, second: str) -> str:
    middle = FAILS_AT_S + FAILS_FOR_S / 2
    faults = [
        {"provider": "lead", "from_s": FAILS_AT_S, "to_s": middle, "do": first},
        {"provider": "lead", "from_s": middle, "to_s": FAILS_AT_S + FAILS_FOR_S, "do": second},
    ]
    return json.dumps({"latency_s": 0.3, "faults": faults})


def config(port: int, rate: int) -> str:
    sections = (
        f'[providers.{name}]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/{name}/v1"\n'
        f"requests_per_minute = {rate}\ntimeout_s = {TIMEOUT_S}\n"
        for name in ("lead", "understudy")
    )
    return "\n".join(sections)


def report(calls: list[CALL]) -> str:
    """Shares refer to the calls started in the same second."""
    wasted = [call for call in calls if call[3] != "answered"]
    recovered = FAILS_AT_S + FAILS_FOR_S
    all_calls = Counter(int(call[0]) for call in calls)
    lead_calls = Counter(int(call[0]) for call in calls if call[1] == "lead" and call[3] == "answered")
    before = [second for second in all_calls if 10 <= second < FAILS_AT_S - 1]
    rate_before = sum(lead_calls[second] for second in before) / max(len(before), 1)
    share_before = sum(lead_calls[second] for second in before) / max(sum(all_calls[second] for second in before), 1)
    last = int(max(call[0] for call in calls))
    back = next(
        (
            second
            for second in range(int(recovered), last - SETTLED_S)
            if all(
                lead_calls[each] >= BACK * share_before * all_calls[each] and lead_calls[each] >= BACK * rate_before
                for each in range(second, second + SETTLED_S)
            )
        ),
        None,
    )
    during = range(int(FAILS_AT_S), int(recovered))
    answered = Counter(int(call[0]) for call in calls if call[3] == "answered")
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(call[3] for call in wasted).items())
    return (
        f"{len(wasted)} of {len(calls):,} calls wasted ({len(wasted) / len(calls):.2%}: {kinds}),"
        f" lead had {share_before:.0%} before, back after"
        f" {'never' if back is None else f'{max(back - recovered, 0):.0f} s'},"
        f" answers started while it failed {sum(answered[each] for each in during) / FAILS_FOR_S:.0f}/s,"
        f" before {sum(answered[each] for each in before) / max(len(before), 1):.0f}/s"
    )


def by_second(calls: list[CALL]) -> str:
    lines = []
    for second in range(int(FAILS_AT_S) - 2, int(max(call[0] for call in calls))):
        of = Counter((call[1], call[3]) for call in calls if int(call[0]) == second)
        lines.append(
            f"{second:>4} s  " + "  ".join(f"{who} {what} {count}" for (who, what), count in sorted(of.items()))
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--patience", default="10,0")
    parser.add_argument("--rate", type=int, default=6_000)
    parser.add_argument(
        "--first", default="500,stall", help="what the primary does in the first and second half of its outage"
    )
    parser.add_argument("--by-second", action="store_true")
    arguments = parser.parse_args()
    first, second = arguments.first.split(",")
    for patience in arguments.patience.split(","):
        steps = chain("lead/m", "understudy/m", patience_s=float(patience))
        jobs = int(arguments.rate / 60 * arguments.seconds * 1.5) + 1_000
        with (
            provider("scripted_provider.py", script(first, second)) as port,
            fleet(arguments.redis_url, config(port, arguments.rate), [(steps, jobs)]),
        ):
            calls = calls_after(port, arguments.seconds)
        print(f"patience {patience} s: {report(calls)}", flush=True)
        if arguments.by_second:
            print(by_second(calls), flush=True)


if __name__ == "__main__":
    main()
