"""The loads of the other benchmarks with alternatives: LiteLLM's Router, and a plain loop with a semaphore and retries.

    python -m venv .rivals && .rivals/bin/pip install litellm redis
    python benchmarks/rivals.py limits|random|lead|key|chains --redis-url URL [--seconds N]
        [--litellm .rivals/bin/python] [--rivals litellm,litellm-redis,loop] [--limits 600,6000]
        [--known configured,headers,neither] [--servers bucket,fixed,sliding] [--tokens]
        [--shares 0.01,0.4] [--hints 0,2] [--statuses 429,503,529]

Three processes each, against the same providers, with an endless supply of work. `limits` corresponds to
`benchmarks/limits.py`, `random` to the same with `--servers random` and equal slots, `lead` to `failing_lead.py`, `key`
to `retry_after.py`, `chains` to `two_chains.py`. Otherwise, each process has twice the slots that the rate needs if the
user knows it (`configured`), or 20. Neither alternative learns limits from headers or refusals: `headers` is the same
setting as `neither`, against a provider that sends Retry-After. With --tokens the limit counts tokens (the limit ×
1,000), with the prompts of `limits.py --tokens`. With litellm-redis the processes share the given Redis database, which
is FLUSHED.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import failing_lead
import redis
import retry_after
from fleet_run import (
    BODY,
    HERE,
    TOKENS_A_CALL,
    WORKERS,
    all_sizes,
    calls_after,
    cases,
    command_line,
    counts_after,
    one_size,
    processes,
    provider,
)
from random_refusals import LATENCY_S, measure, with_options

UNKNOWN_SLOTS = 20
BODIES = 1_000
"""Prompts of different sizes, used in rotation."""

ONE_BODY: Mapping[str, Any] = json.loads(BODY)
PROGRAMS = {"litellm": "litellm_router.py", "litellm-redis": "litellm_router.py", "loop": "retry_loop.py"}
STARTING_S = 120.0
"""More than the processes need to start; they are stopped when the measurement is over."""


def step(
    port: int, path: str = "", keys: tuple[str, ...] = ("one",), rpm: int | None = None, tpm: int | None = None
) -> dict[str, Any]:
    return {"base_url": f"http://127.0.0.1:{port}{path}/v1", "keys": keys, "rpm": rpm, "tpm": tpm}


def slots(per_minute: float) -> int:
    """Twice what each process needs for its part of the rate."""
    return max(math.ceil(2 * per_minute / 60 * LATENCY_S / WORKERS), 1)


@contextmanager
def rival(
    arguments: argparse.Namespace,
    name: str,
    groups: list[dict[str, Any]],
    in_flight: int,
    timeout_s: float = 60.0,
    bodies: Sequence[Mapping[str, Any]] = (ONE_BODY,),
) -> Iterator[None]:
    """Run three processes. A group has a name and the steps of its chain; jobs alternate between groups."""
    parts = redis.connection.parse_url(arguments.redis_url)
    shared = {"host": parts.get("host"), "port": parts.get("port", 6379), "db": parts.get("db", 0)}
    spec = {
        "seconds": arguments.seconds + STARTING_S,
        "in_flight": in_flight,
        "groups": groups,
        "timeout_s": timeout_s,
        "redis": shared if name == "litellm-redis" else None,
        "bodies": [{"model": "m", **body} for body in bodies],
    }
    python = sys.executable if name == "loop" else arguments.litellm
    with tempfile.TemporaryDirectory(prefix="us-") as folder, redis.Redis.from_url(arguments.redis_url) as connection:
        connection.flushdb()
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(spec))
        with processes([[python, HERE / "rivals" / PROGRAMS[name], path]] * WORKERS, Path(folder) / "said") as started:
            yield
            if any(process.poll() is not None for process in started):
                sys.exit(f"{name} ended by itself; its output:\n{(Path(folder) / 'said').read_text()}")


def limits(arguments: argparse.Namespace, name: str) -> None:
    for server, limit, known in cases(arguments):
        report_limit(arguments, name, server, limit, known)


def report_limit(arguments: argparse.Namespace, name: str, server: str, limit: int, known: str) -> None:
    configured, tokens = known == "configured", arguments.tokens
    allowed = limit * TOKENS_A_CALL if tokens else limit
    limited = {"tpm" if tokens else "rpm": allowed} if configured else {}
    numbers = (0, allowed) if tokens else (allowed, 0)
    bodies = [json.loads(body) for body, _ in islice(all_sizes() if tokens else one_size(), BODIES)]
    with provider("strict_provider.py", server, *numbers, 0 if known == "neither" else 1) as port:
        group = {"name": "strict", "steps": [step(port, **limited)]}
        with rival(arguments, name, [group], slots(limit) if configured else UNKNOWN_SLOTS, bodies=bodies):
            counts = counts_after(port, arguments.seconds)
    calls = counts["accepted"] + counts["refused"]
    used = counts["tokens" if tokens else "accepted"] / (allowed / 60 * (counts["seconds"] + 1))
    print(
        f"{name}: {server} {allowed:,} {'tokens' if tokens else 'requests'}/min, {known:<10} {counts['seconds']:.0f} s:"
        f" {used:6.1%} used, {counts['refused'] / max(calls, 1):5.1%} of {calls:,.0f} calls refused",
        flush=True,
    )


def random(arguments: argparse.Namespace, name: str) -> None:
    def started(base_url: str, slots: int) -> AbstractContextManager[object]:
        group = {"name": "random", "steps": [{"base_url": base_url, "keys": ("one",), "rpm": None, "tpm": None}]}
        return rival(arguments, name, [group], slots)

    measure(arguments, started, f"{name}: ")


def lead(arguments: argparse.Namespace, name: str) -> None:
    rate = 6_000
    with provider("scripted_provider.py", failing_lead.script("500", "stall")) as port:
        group = {"name": "chain", "steps": [step(port, "/lead"), step(port, "/understudy")]}
        in_flight = math.ceil(rate / 60 * LATENCY_S / WORKERS)
        with rival(arguments, name, [group], in_flight, failing_lead.TIMEOUT_S):
            calls = calls_after(port, arguments.seconds)
    print(f"{name}: {failing_lead.report(calls)}", flush=True)


def key(arguments: argparse.Namespace, name: str) -> None:
    hint_s, rate = 30.0, 1_800
    with provider("scripted_provider.py", retry_after.script(hint_s)) as port:
        group = {"name": "trio", "steps": [step(port, "/trio", retry_after.KEYS)]}
        in_flight = math.ceil(len(retry_after.KEYS) * rate / 60 * LATENCY_S / WORKERS)
        with rival(arguments, name, [group], in_flight):
            calls = calls_after(port, arguments.seconds)
    print(f"{name}: {retry_after.report(calls, hint_s)}", flush=True)


def chains(arguments: argparse.Namespace, name: str) -> None:
    """One list with jobs of both chains, as from one file."""
    seen = []
    for names in (("other",), ("slow", "other")):
        with (
            provider("strict_provider.py", "bucket", 60, 0, 1) as slow,
            provider("strict_provider.py", "bucket", 3_000, 0, 1) as other,
        ):
            ports = {"slow": (slow, 60), "other": (other, 3_000)}
            groups = [{"name": each, "steps": [step(ports[each][0], rpm=ports[each][1])]} for each in names]
            with rival(arguments, name, groups, slots(3_060)):
                counts = counts_after(other, arguments.seconds)
                seen.append(counts["accepted"] / counts["seconds"])
    alone, both = seen
    print(f"{name}: the other chain {alone:.1f}/s alone, {both:.1f}/s next to it: {both / alone:.1%}", flush=True)


LOADS = {"limits": limits, "random": random, "lead": lead, "key": key, "chains": chains}


def main() -> None:
    parser = with_options(command_line(__doc__, seconds=60.0, limits="600,6000"))
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("--litellm", default=".rivals/bin/python", help="Python interpreter with litellm installed")
    parser.add_argument("--rivals", default=",".join(PROGRAMS))
    arguments = parser.parse_args()
    for name in arguments.rivals.split(","):
        LOADS[arguments.load](arguments, name)


if __name__ == "__main__":
    main()
