"""How well limits are used: three workers on one Redis and one ledger, and a provider that keeps its limit strictly.

    python benchmarks/limits.py --redis-url URL [--seconds 120] [--limits 60,600,6000]
        [--known configured,headers,neither] [--servers bucket,fixed,sliding] [--tokens]

The named Redis database is FLUSHED. Printed for each: accepted / (burst + rate × time), and the share of all calls that
were answered 429. The burst is a second's worth for every kind of server. With --tokens the limit counts tokens (the
limit × 1,000), with prompts of 25 to 4,000 tokens, answers of 40, and max_tokens 2,000; that use is of tokens.
Time runs from the first call. Trust the ratios: a busy machine starts its workers late and slowly.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from random import Random

import redis

from models.chain import Chain, Step
from models.ids import new_id
from models.records import NewBatch, NewJob
from models.store import open_store

HERE = Path(__file__).parent
WORKERS = 3
SLICE = 2_000
TOKENS_A_CALL = 1_000


def config_text(port: int, limit: int, known: str, tokens: bool) -> str:
    name = "tokens_per_minute" if tokens else "requests_per_minute"
    configured = f"{name} = {limit}\n" if known == "configured" else ""
    return f'[providers.strict]\nkind = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n{configured}'


async def accept(data: Path, count: int, tokens: bool) -> None:
    rng, chain, deadline = Random(7), Chain(steps=(Step(provider="strict", model="m"),)), time.time() + 86_400
    batch_id = new_id("batch")
    async with open_store(os.environ.get("DATABASE_URL"), data, migrate=True) as store:
        await store.create_batch(NewBatch(batch_id, expires_at=deadline))
        for first in range(0, count, SLICE):
            rows = []
            for number in range(first, min(first + SLICE, count)):
                words = rng.choice((25, 100, 400, 4_000)) if tokens else 10
                body = {"messages": [{"role": "user", "content": "word" * words}], "max_tokens": 2_000}
                job_id, line = new_id("job"), f"line-{number}"
                rows.append(NewJob(job_id, json.dumps(body), chain, line, number, tokens=words, expires_at=deadline))
            await store.add_jobs(batch_id, rows)
        await store.open_batch(batch_id, count)


def count_of(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count") as reply:
        counts: dict[str, float] = json.load(reply)
    return counts


def wait_for_the_end(port: int, seconds: float) -> dict[str, float]:
    began = time.monotonic()
    while (counts := count_of(port))["seconds"] < seconds:
        if time.monotonic() - began > seconds + 60:
            raise RuntimeError("no worker called the provider within a minute")
        time.sleep(min(max(seconds - counts["seconds"], 0.02), 0.5))
    return counts


def measure(arguments: argparse.Namespace, kind: str, limit: int, known: str) -> None:
    seconds, tokens = arguments.seconds, arguments.tokens
    allowed = limit * TOKENS_A_CALL if tokens else limit
    numbers = ["0", str(allowed)] if tokens else [str(allowed), "0"]
    server = subprocess.Popen(
        [sys.executable, HERE / "strict_provider.py", kind, *numbers, "0" if known == "neither" else "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    workers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="us-") as folder, redis.Redis.from_url(arguments.redis_url) as connection:
        try:
            port = int(server.stdout.readline()) if server.stdout else 0
            connection.flushdb()
            data, config = Path(folder) / "data", Path(folder) / "understudy.toml"
            data.mkdir()
            config.write_text(config_text(port, allowed, known, tokens))
            asyncio.run(accept(data, int(limit / 60 * (seconds + 10) * 3) + 3_000, tokens))
            command = [
                sys.executable,
                "-P",
                "-m",
                "worker.main",
                "--data",
                str(data),
                "--config",
                str(config),
                "--grace",
                "1",
            ]
            environment = {**os.environ, "REDIS_URL": arguments.redis_url}
            with (Path(folder) / "said").open("wb") as said:
                for _ in range(WORKERS):
                    workers.append(subprocess.Popen(command, env=environment, stderr=said, stdout=said))
            counts = wait_for_the_end(port, seconds)
        finally:
            for process in [*workers, server]:
                process.terminate()
            for process in [*workers, server]:
                process.wait()
    offered = allowed / 60 * (counts["seconds"] + 1)
    calls = counts["accepted"] + counts["refused"]
    used = (counts["tokens"] if tokens else counts["accepted"]) / offered
    unit = "tokens" if tokens else "requests"
    print(
        f"{kind:>8} {allowed:>9,} {unit}/min, {known:<10} {counts['seconds']:.0f} s: {used:6.1%} used,"
        f" {counts['refused'] / max(calls, 1):5.1%} of {calls:,.0f} calls refused",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--limits", default="60,600,6000")
    parser.add_argument("--known", default="configured,headers,neither")
    parser.add_argument("--servers", default="bucket")
    parser.add_argument("--tokens", action="store_true")
    arguments = parser.parse_args()
    for kind in arguments.servers.split(","):
        for limit in arguments.limits.split(","):
            for known in arguments.known.split(","):
                measure(arguments, kind, int(limit), known)


if __name__ == "__main__":
    main()
