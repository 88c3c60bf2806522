"""Shared by the fleet benchmarks: a provider, three workers on one Redis and one ledger, jobs, and their counts.

The ledger is SQLite in a new temporary folder for each run. The given Redis database is FLUSHED.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product, repeat
from pathlib import Path
from random import Random
from typing import Any

import redis

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.store import open_store

HERE = Path(__file__).parent
WORKERS = 3
SLICE = 2_000
FIRST_CALL_S = 120.0
BODY = json.dumps({"messages": [{"role": "user", "content": "word " * 8}], "max_tokens": 20})
PROMPTS, MOST_TOKENS, TOKENS_A_CALL = (25, 100, 400, 4_000), 2_000, 1_000
"""For token limits: tokens of the prompts, `max_tokens`, and the approximate usage of a call."""

Request = tuple[str, int]
"""A request body, and the number of tokens of its prompt."""

CALL = tuple[float, str, str, str]
"""Seconds since the first call, provider, key, outcome."""


@contextmanager
def processes(
    commands: Sequence[Sequence[object]], said: Path | None = None, **environment: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes together and stop them at the end. `said`: a file for their output."""
    started: list[subprocess.Popen[str]] = []
    with ExitStack() as stack:
        words = stack.enter_context(said.open("wb")) if said else None
        try:
            for command in commands:
                started.append(
                    subprocess.Popen(
                        [str(word) for word in command],
                        env={**os.environ, **environment},
                        stdout=words or subprocess.PIPE,
                        stderr=words,
                        text=True,
                    )
                )
            yield started
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


@contextmanager
def provider(script: str, *arguments: object) -> Iterator[int]:
    """Run a provider script of this folder in its own process. Yields its port."""
    with processes([[sys.executable, HERE / script, *arguments]]) as (process,):
        assert process.stdout is not None
        yield int(process.stdout.readline())


def one_size() -> Iterator[Request]:
    return repeat((BODY, 10))


def all_sizes() -> Iterator[Request]:
    """Prompts of very different sizes, in random order, with potentially long answers."""
    rng = Random(7)
    while True:
        tokens = rng.choice(PROMPTS)
        body = {"messages": [{"role": "user", "content": "word" * tokens}], "max_tokens": MOST_TOKENS}
        yield json.dumps(body), tokens


@contextmanager
def fleet(
    redis_url: str,
    config: str,
    batches: Sequence[tuple[Chain, int]],
    slots: int = 100,
    requests: Callable[[], Iterator[Request]] = one_size,
    **environment: str,
) -> Iterator[Path]:
    """Three workers with a batch of this many jobs for each chain. Yields their data folder."""
    with tempfile.TemporaryDirectory(prefix="us-") as folder, redis.Redis.from_url(redis_url) as connection:
        data, path = Path(folder) / "data", Path(folder) / "understudy.toml"
        data.mkdir()
        path.write_text(config)
        connection.flushdb()
        asyncio.run(_accept(data, batches, requests))
        command = [sys.executable, "-P", "-m", "understudy.worker.main", "--data", data, "--config", path]
        command += ["--grace", "1", "--max-concurrency", slots]
        environment = {"REDIS_URL": redis_url, "DATABASE_URL": "", **environment}
        with processes([command] * WORKERS, Path(folder) / "said", **environment) as workers:
            yield data
            dead = [worker.returncode for worker in workers if worker.poll() is not None]
            if dead:
                sys.exit(f"a worker ended by itself ({dead}); its output:\n{(Path(folder) / 'said').read_text()}")


async def _accept(data: Path, batches: Sequence[tuple[Chain, int]], requests: Callable[[], Iterator[Request]]) -> None:
    deadline = time.time() + 86_400
    async with open_store(None, data, migrate=True) as store:
        for chain, count in batches:
            batch_id, asked = new_id("batch"), requests()
            await store.intake.create_batch(NewBatch(batch_id, expires_at=deadline))
            for first in range(0, count, SLICE):
                lines = range(first, min(first + SLICE, count))
                rows = [
                    NewJob(new_id("job"), body, chain, f"line-{line}", line, tokens=tokens, expires_at=deadline)
                    for line, (body, tokens) in zip(lines, asked, strict=False)
                ]
                await store.intake.add_jobs(batch_id, rows)
            await store.intake.open_batch(batch_id, count)


def chain(*steps: str, **policy: object) -> Chain:
    """From strings of the form `provider/model`."""
    parsed = [Step(provider=name.partition("/")[0], model=name.partition("/")[2]) for name in steps]
    return Chain.model_validate({"steps": parsed, **policy})


def ask(port: int, path: str) -> Any:
    """Status information from a provider script."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as reply:
        return json.load(reply)


def until_called(*ports: int) -> None:
    """Wait for the first call at each of these strict providers."""
    deadline = time.monotonic() + FIRST_CALL_S
    while not all(ask(port, "/count")["seconds"] for port in ports):
        if time.monotonic() > deadline:
            sys.exit("no call came")
        time.sleep(0.05)


def counts_after(port: int, seconds: float) -> dict[str, float]:
    """The counts of a strict provider, `seconds` after its first call."""
    until_called(port)
    time.sleep(seconds)
    counts: dict[str, float] = ask(port, "/count")
    return counts


def calls_after(port: int, seconds: float) -> list[CALL]:
    """All calls of a scripted provider, `seconds` after the first."""
    deadline = time.monotonic() + FIRST_CALL_S
    while not ask(port, "/calls"):
        if time.monotonic() > deadline:
            sys.exit("no call came")
        time.sleep(0.05)
    time.sleep(seconds)
    return [(each[0], each[1], each[2], each[3]) for each in ask(port, "/calls")]


def command_line(
    description: str | None, *, seconds: float = 120.0, limits: str = "60,600,6000", servers: str = "bucket"
) -> argparse.ArgumentParser:
    """The limits that a benchmark covers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--limits", default=limits)
    parser.add_argument("--known", default="configured,headers,neither")
    parser.add_argument("--servers", default=servers)
    parser.add_argument("--tokens", action="store_true")
    return parser


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Kind of server, calls per minute, and how the limit is known."""
    limits = map(int, arguments.limits.split(","))
    return product(arguments.servers.split(","), limits, arguments.known.split(","))
