"""Memory of the API process during the upload of a big file and the download of a big output.

    python benchmarks/big_file.py --redis redis://127.0.0.1:6379/6 [--megabytes 300] [--lines 1000000]

It starts `understudy api` on a SQLite ledger in a temporary folder, and prints durations and the growth of the process.
"""

import argparse
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from own_servers import serving

from understudy.models.store import LEDGER_FILE

MEGABYTE = 1_000_000
LINE = b'{"custom_id":"%09d","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":'
TEXT = b'"' + b"word " * 40 + b'"}]}}\n'
BATCH = "batch_big"

FILL = """
WITH RECURSIVE line(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM line WHERE n < :lines)
INSERT INTO {table} ({columns}) SELECT {values} FROM line
"""


@contextmanager
def watched(process: psutil.Process, what: str) -> Iterator[None]:
    """Print the duration of the block and the maximum growth of the process during it."""
    before = most = process.memory_info().rss
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    try:
        yield
    finally:
        took_s = time.monotonic() - began
        over.set()
        watching.join()
    print(f"{what}: {took_s:.1f} s, from {before / MEGABYTE:.0f} MB by at most {(most - before) / MEGABYTE:.1f} MB")


def body(size: int) -> Iterator[bytes]:
    """The body of an upload of that many bytes, in pieces."""
    yield b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--edge\r\n'
    yield b'Content-Disposition: form-data; name="file"; filename="big.jsonl"\r\n\r\n'
    number = sent = 0
    while sent < size:
        lines = b"".join(LINE % (number + n) + TEXT for n in range(1000))
        number, sent = number + 1000, sent + len(lines)
        yield lines
    yield b"\r\n--edge--\r\n"


def fill(ledger: Path, lines: int) -> None:
    """Create a finished batch with one answer per line."""
    job = {
        "id": "printf('job_%09d', n)",
        "batch_id": f"'{BATCH}'",
        "tenant": "'default'",
        "custom_id": "printf('r%09d', n)",
        "line": "n",
        "chain_id": "''",
        "priority": "0",
        "state": "'succeeded'",
        "not_before": "0",
        "expires_at": "0",
        "tokens": "0",
        "claim_no": "1",
        "cancel_requested": "0",
        "crashes": "0",
        "attempts": "1",
        "created_at": "0",
    }
    result = {
        "job_id": job["id"],
        "batch_id": job["batch_id"],
        "status_code": "200",
        "body": """'{"id":"chatcmpl-1","choices":[{"message":{"content":"' || printf('%.300c', 'x') || '"}}]}'""",
        "fallback_index": "0",
        "input_tokens": "0",
        "output_tokens": "0",
        "cost_usd": "0",
        "latency_ms": "0",
        "created_at": "0",
    }
    file = (
        "INSERT INTO file (id, tenant, purpose, filename, lines, batch_id, part, created_at) VALUES (?,?,?,?,?,?,?,?)"
    )
    connection = sqlite3.connect(ledger)
    with connection:
        for table, columns in (("job", job), ("result", result)):
            names, values = ", ".join(columns), ", ".join(columns.values())
            connection.execute(FILL.format(table=table, columns=names, values=values), {"lines": lines})
        row = (f"file_{BATCH}_output", "default", "batch_output", "big.jsonl", 0, BATCH, "output", 1.0)
        connection.execute(file, row)
    connection.close()


def download(http: httpx.Client, path: str) -> tuple[int, int]:
    """The number of bytes and lines of a file."""
    size = lines = 0
    with http.stream("GET", path) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_raw(65_536):
            size, lines = size + len(chunk), lines + chunk.count(b"\n")
    return size, lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--redis", required=True)
    options.add_argument("--megabytes", type=int, default=300)
    options.add_argument("--lines", type=int, default=1_000_000)
    asked = options.parse_args()
    variables = {"REDIS_URL": asked.redis, "DATABASE_URL": None}
    with tempfile.TemporaryDirectory() as folder, serving("api", Path(folder), **variables) as (pid, url):
        process, ledger = psutil.Process(pid), Path(folder) / "data" / LEDGER_FILE
        with httpx.Client(base_url=url, timeout=600) as http:
            http.get("/v1/files")
            with watched(process, f"upload of {asked.megabytes} MB"):
                headers = {"content-type": "multipart/form-data; boundary=edge"}
                made = http.post("/v1/files", content=body(asked.megabytes * MEGABYTE), headers=headers).json()
            with watched(process, "its download"):
                size, lines = download(http, f"/v1/files/{made['id']}/content")
            assert size == made["bytes"], (size, made)
            fill(ledger, asked.lines)
            path = f"/v1/files/file_{BATCH}_output"
            with watched(process, f"download of an output of {asked.lines:,} lines"):
                size, lines = download(http, f"{path}/content")
            assert lines == asked.lines
            assert http.get(path).json()["bytes"] == size
            with watched(process, f"deletion of its {size / MEGABYTE:.0f} MB"):
                assert http.delete(path).json()["deleted"]
                while answers(ledger):
                    time.sleep(0.2)


def answers(ledger: Path) -> int:
    """Whether the row of the file still exists: it is removed last."""
    connection = sqlite3.connect(ledger)
    found: int = connection.execute("SELECT count(*) FROM file WHERE part = 'output'").fetchone()[0]
    connection.close()
    return found


if __name__ == "__main__":
    main()
