"""One chain saturated, another one free: the rate of the other chain alone and alongside it, and the cost of waiting.

    python benchmarks/two_chains.py --redis-url URL [--seconds 60] [--rate 3000] [--in-flight 0] [--jobs 5000]

The given Redis database is FLUSHED; its server should have no other clients, whose commands would be counted, too. The
provider of the saturated chain strictly accepts 60 requests per minute, with thousands of jobs waiting; the other
provider accepts --rate per minute, or is limited to --in-flight concurrent calls instead. Three workers. Rates are
calls accepted by a provider from the fifth second on. For the saturated chain, the cost of waiting is printed: tickets
and claims per call (1.00: none wasted), and Redis commands per second.
"""

import argparse
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import redis
from fleet_run import ask, chain, fleet, provider, until_called

from understudy.models.store import LEDGER_FILE

SLOW_PER_MINUTE = 60
SETTLES_S = 5.0
SLOW, OTHER = chain("slow/m"), chain("other/m")


@dataclass(frozen=True, slots=True)
class Seen:
    """Per second: accepted calls of both providers, Redis commands, tickets, and claims that started a job."""

    slow: float
    other: float
    commands: float
    tickets: float
    starts: float


def config(ports: tuple[int, int], rate: int, in_flight: int) -> str:
    held = f"max_in_flight = {in_flight}" if in_flight else f"requests_per_minute = {rate}"
    words = {"slow": (ports[0], f"requests_per_minute = {SLOW_PER_MINUTE}"), "other": (ports[1], held)}
    return "\n".join(
        f'[providers.{name}]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n{limit}\n'
        for name, (port, limit) in words.items()
    )


def run(arguments: argparse.Namespace, slow_jobs: int, other_jobs: int) -> Seen:
    limit = 0 if arguments.in_flight else arguments.rate
    with (
        provider("strict_provider.py", "bucket", SLOW_PER_MINUTE, 0, 1) as slow,
        provider("strict_provider.py", "bucket", limit, 0, 1) as other,
        redis.Redis.from_url(arguments.redis_url) as connection,
        fleet(
            arguments.redis_url,
            config((slow, other), arguments.rate, arguments.in_flight),
            [(of, jobs) for of, jobs in ((SLOW, slow_jobs), (OTHER, other_jobs)) if jobs],
        ) as data,
    ):
        until_called(*(port for port, jobs in ((slow, slow_jobs), (other, other_jobs)) if jobs))
        time.sleep(SETTLES_S)
        before, began = counts((slow, other), connection, data), time.monotonic()
        time.sleep(arguments.seconds - SETTLES_S)
        after, elapsed_s = counts((slow, other), connection, data), time.monotonic() - began
    return Seen(*((b - a) / elapsed_s for a, b in zip(before, after, strict=True)))


def counts(ports: tuple[int, int], connection: redis.Redis, data: Path) -> list[float]:
    """In the order of `Seen`. Commands include those inside scripts; tickets are the only RPUSH commands."""
    stats = connection.info("commandstats")
    with sqlite3.connect(data / LEDGER_FILE) as ledger:
        (starts,) = ledger.execute("SELECT coalesce(sum(claim_no), 0) FROM job").fetchone()
    commands = sum(each["calls"] for each in stats.values())
    tickets = stats.get("cmdstat_rpush", {"calls": 0})["calls"]
    return [*(ask(port, "/count")["accepted"] for port in ports), commands, tickets, starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=3_000)
    parser.add_argument("--in-flight", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=5_000, help="jobs of the saturated chain")
    arguments = parser.parse_args()
    enough = int((arguments.rate / 60 + arguments.in_flight / 0.3) * (arguments.seconds + 10)) + 1_000
    idle = run(arguments, 0, 0)
    slow = run(arguments, arguments.jobs, 0)
    alone = run(arguments, 0, enough)
    both = run(arguments, arguments.jobs, enough)
    print(f"the other chain: {alone.other:.1f}/s alone, {both.other:.1f}/s next to it: {both.other / alone.other:.1%}")
    print(
        f"the saturated one: {slow.slow:.2f} calls/s alone and {both.slow:.2f} next to the other; alone it costs"
        f" {slow.tickets / slow.slow:.2f} tickets and {slow.starts / slow.slow:.2f} claims a call,"
        f" {slow.commands - idle.commands:.0f} commands of Redis a second (an idle fleet: {idle.commands:.0f})"
    )
    print(
        f"next to the other: {(both.tickets - alone.tickets) / both.slow:.2f} more tickets and"
        f" {(both.starts - alone.starts) / both.slow:.2f} more claims a call of it,"
        f" {both.commands - alone.commands:.0f} more commands a second",
        flush=True,
    )


if __name__ == "__main__":
    main()
