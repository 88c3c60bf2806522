"""The cost of waiting: how often jobs are put back because of our own pacing, and the load of an idle or saturated
fleet.

    python benchmarks/waiting.py [--seconds 30] [--workers 3] [--limits 0,1,60,600,6000] [--lanes 1] [--in-flight N]

It starts a private Redis server (`redis-server`), workers, and a provider that strictly enforces a configured limit.
Limit 0 means that nothing is submitted, 1 per minute that everything waits. Printed for each: calls, claimed tickets,
put-backs per call, Redis commands and ledger changes per second, and the workers' share of a core. Changes are polled a
hundred times a second, so more than that are not counted.
"""

import argparse
import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
import redis

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.store import open_store

HERE = Path(__file__).parent
LOOK_S = 0.01
SETTLE_S = 8.0
BODY = json.dumps({"messages": [{"role": "user", "content": "How many legs has a spider?"}], "max_tokens": 20})


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def started(stack: ExitStack, *command: object, **environment: str) -> "subprocess.Popen[str]":
    """A process that is stopped with the exit stack."""
    words, env = [str(word) for word in command], os.environ | environment
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


async def accept(data: Path, count: int, lanes: int) -> None:
    chain, deadline = Chain(steps=(Step(provider="strict", model="m"),)), time.time() + 86_400
    async with open_store(None, data, migrate=True) as store:
        for _ in range(lanes if count else 0):
            batch_id = new_id("batch")
            await store.intake.create_batch(NewBatch(batch_id, expires_at=deadline))
            for first in range(0, count, 2_000):
                numbers = range(first, min(first + 2_000, count))
                rows = [
                    NewJob(new_id("job"), BODY, chain, f"line-{n}", n, 10, 20, expires_at=deadline) for n in numbers
                ]
                await store.intake.add_jobs(batch_id, rows)
            await store.intake.open_batch(batch_id, count)


def calls_of(port: int) -> tuple[int, int]:
    """The numbers of all calls and of refused calls."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count") as reply:
        counted = json.load(reply)
    return int(counted["accepted"] + counted["refused"]), int(counted["refused"])


def watched(ledger: Path, for_s: float) -> int:
    """Counts changes of the ledger."""
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
        changes, last, end = 0, None, time.monotonic() + for_s
        while time.monotonic() < end:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            changes, last = changes + (last is not None and version != last), version
            time.sleep(LOOK_S)
    return changes


def claims_of(ledger: Path) -> int:
    with sqlite3.connect(ledger) as connection:
        return int(connection.execute("SELECT coalesce(sum(claim_no), 0) FROM job").fetchone()[0])


def measure(limit: int, seconds: float, workers: int, lanes: int, in_flight: int | None) -> None:
    redis_port = free_port()
    address = f"redis://127.0.0.1:{redis_port}/0"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = Path(folder)
        started(stack, "redis-server", "--port", redis_port, "--save", "", "--dir", data, "--loglevel", "warning")
        provider = started(stack, sys.executable, HERE / "strict_provider.py", "bucket", limit or 60, 0, 0)
        port = int(provider.stdout.readline()) if provider.stdout else 0
        config = data / "understudy.toml"
        config.write_text(
            f'[providers.strict]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
            f"requests_per_minute = {limit or 60}\n" + (f"max_in_flight = {in_flight}\n" if in_flight else "")
        )
        asyncio.run(accept(data, max(20, round(limit * (seconds + 60) / 60)) if limit else 0, lanes))
        server = stack.enter_context(redis.Redis.from_url(address))
        with ExitStack() as fleet:
            command = (sys.executable, "-P", "-m", "understudy.worker.main", "--config", config)
            command += ("--data", data, "--grace", 1)
            pids = [started(fleet, *command, REDIS_URL=address).pid for _ in range(workers)]
            while len(server.smembers("rq:workers")) < workers:
                time.sleep(0.1)
            time.sleep(SETTLE_S)
            before = seen(server, port, data / "ledger.db", pids)
            changes = watched(data / "ledger.db", seconds)
            then = seen(server, port, data / "ledger.db", pids)
    calls, refused, claims, asked, cpu_s = (then[i] - before[i] for i in range(5))
    print(
        f"{limit:>6}/min, {lanes} lanes: {calls:.0f} calls, {refused:.0f} of them refused, "
        f"{(claims - calls) / max(calls, 1):.3f} put back a call, "
        f"{asked / seconds:.0f} commands/s, {changes / seconds:.1f} changes/s, {cpu_s / seconds:.0%} of a core",
        flush=True,
    )


def seen(server: "redis.Redis", port: int, ledger: Path, pids: Sequence[int]) -> tuple[float, ...]:
    """Calls, refused calls, claims, commands and CPU seconds of the workers so far."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return *calls_of(port), claims_of(ledger), commands(server), sum(each.user + each.system for each in times)


def commands(server: "redis.Redis") -> int:
    """All commands, including those of scripts."""
    return sum(int(each["calls"]) for each in server.info("commandstats").values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--in-flight", type=int)
    parser.add_argument("--limits", default="0,1,60,600,6000")
    words = parser.parse_args()
    for limit in words.limits.split(","):
        measure(int(limit), words.seconds, words.workers, words.lanes, words.in_flight)


if __name__ == "__main__":
    main()
