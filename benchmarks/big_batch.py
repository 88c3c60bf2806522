"""One file of a million lines through the HTTP API: upload, filling, download; memory and latency of the server.

    python benchmarks/big_batch.py [--lines 1000000] [--bytes-per-line 300]

Runs a real `understudy api` on SQLite in a temporary folder, and its own queue server. This script writes the results
into the ledger, because providers are not measured here. Memory is the resident size of the server process, sampled
every 20 ms; the latency is that of GET /healthz, also every 20 ms.
"""

import argparse
import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from own_servers import own_redis, serving, until

from understudy.models.store import LEDGER_FILE, open_store

EVERY_S = 0.02
LONGEST_S = 1_800.0
ANSWER = json.dumps(
    {"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "a" * 400}}]}
)
CONFIG = '[providers.lead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'


class Watch:
    """Samples a process and its /healthz in background threads; `phase` reports the samples of a block."""

    def __init__(self, pid: int, url: str) -> None:
        self._process = psutil.Process(pid)
        self._url = url
        self._sizes: list[int] = []
        self._delays_ms: list[float] = []
        self.idle = self._process.memory_info().rss
        self.peak = self.idle
        for work in (self._measure, self._ask):
            threading.Thread(target=work, daemon=True).start()

    @contextmanager
    def phase(self, name: str, lines: int, size: int) -> Iterator[None]:
        self._sizes, self._delays_ms = [self._process.memory_info().rss], []
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        sizes, delays = self._sizes, sorted(self._delays_ms)
        self.peak = max(self.peak, *sizes)
        median, late = (statistics.median(delays), delays[len(delays) * 99 // 100]) if delays else (0.0, 0.0)
        print(
            f"{name:<10} {took:7.1f} s  {lines / took:>9,.0f} lines/s  {size / took / 1e6:6.1f} MB/s  "
            f"memory {mega(max(sizes))}, {mega(max(sizes) - self.idle)} above idle  "
            f"/healthz p50 {median:.1f} ms, p99 {late:.1f} ms, worst {delays[-1] if delays else 0:.0f} ms",
            flush=True,
        )

    def _measure(self) -> None:
        while self._process.is_running():
            try:
                self._sizes.append(self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(EVERY_S)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as http:
            while True:
                began = time.monotonic()
                try:
                    http.get("/healthz")
                except httpx.HTTPError:
                    return
                self._delays_ms.append((time.monotonic() - began) * 1_000)
                time.sleep(EVERY_S)


def mega(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def write_input(path: Path, lines: int, size: int) -> None:
    with path.open("w") as stream:
        for number in range(lines):
            body = {"model": "lead/large", "messages": [{"role": "user", "content": ""}]}
            line = {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            missing = size - len(json.dumps(line)) - 1
            body["messages"] = [{"role": "user", "content": "x" * max(1, missing)}]
            stream.write(json.dumps(line) + "\n")


RESULTS = """
INSERT INTO result (job_id, batch_id, status_code, body, provider, model, key, fallback_index, input_tokens,
    output_tokens, cost_usd, latency_ms, created_at)
SELECT id, batch_id, 200, ?, 'lead', 'large', 'main', 0, 1, 1, 0, 1, 1 FROM job WHERE batch_id = ?
"""
END_JOBS = "UPDATE job SET state = 'succeeded', ended_at = created_at, answer_bytes = ? WHERE batch_id = ?"
COUNT_JOBS = """
INSERT INTO tally (batch_id, worker_id, minute, kind, provider, model, outcome, count, fallbacks, input_tokens,
    output_tokens, cost_usd)
VALUES (?, 'bench', 1, 'job', 'lead', 'large', 'succeeded', ?, 0, 0, 0, 0)
"""


def finish_all(ledger: Path, batch_id: str, lines: int) -> None:
    """Give every job an answer, as if workers had processed them."""
    with sqlite3.connect(ledger) as connection:
        connection.execute(RESULTS, (ANSWER, batch_id))
        connection.execute(END_JOBS, (len(ANSWER), batch_id))
        connection.execute(COUNT_JOBS, (batch_id, lines))
    connection.close()


async def close_batch(data: Path) -> None:
    async with open_store(None, data) as store:
        await store.batch_lifecycle.close_finished()


def measure(folder: Path, lines: int, size: int) -> bool:
    source, data = folder / "input.jsonl", folder / "data"
    write_input(source, lines, size)
    total = source.stat().st_size
    print(f"{lines:,} lines, {mega(total)}", flush=True)
    (folder / "understudy.toml").write_text(CONFIG)
    with (
        own_redis() as redis_url,
        serving("api", folder, REDIS_URL=redis_url, DATABASE_URL=None) as (pid, url),
        httpx.Client(base_url=url, timeout=LONGEST_S) as http,
    ):
        watch = Watch(pid, url)
        print(f"idle: {mega(watch.idle)}", flush=True)
        with watch.phase("upload", lines, total), source.open("rb") as stream:
            sent = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("input.jsonl", stream)})
            file_id = sent.raise_for_status().json()["id"]
        request = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        with watch.phase("filling", lines, total):
            batch_id = http.post("/v1/batches", json=request).raise_for_status().json()["id"]
            until(lambda: batch_of(http, batch_id)["status"] != "validating", "the batch is open", LONGEST_S)
        found = batch_of(http, batch_id)
        assert found["request_counts"]["total"] == lines, found["errors"]
        finish_all(data / LEDGER_FILE, batch_id, lines)
        asyncio.run(close_batch(data))
        output, read, bytes_read = batch_of(http, batch_id)["output_file_id"], 0, 0
        with watch.phase("download", lines, lines * 600), http.stream("GET", f"/v1/files/{output}/content") as answer:
            for chunk in answer.raise_for_status().iter_bytes():
                read, bytes_read = read + chunk.count(b"\n"), bytes_read + len(chunk)
        assert read == lines, read
        print(f"downloaded {read:,} lines, {mega(bytes_read)}")
        growth = watch.peak - watch.idle
        print(f"growth of the server in total: {mega(growth)}")
        return growth < 150_000_000


def batch_of(http: httpx.Client, batch_id: str) -> dict:
    return http.get(f"/v1/batches/{batch_id}").raise_for_status().json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--bytes-per-line", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="big-") as folder:
        good = measure(Path(folder), options.lines, options.bytes_per_line)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
