"""Latency from sending a POST to the arrival of the call at the provider, sequentially.

    python benchmarks/http_latency.py [--posts 200] [--path /v1/jobs]

Starts a provider on loopback and `understudy up` in a temporary folder; REDIS_URL and DATABASE_URL are taken from the
environment, and the database must be migrated and idle.
"""

import argparse
import statistics
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from own_servers import serving

ANSWER = b"""{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}"""
CONFIG = '[providers.near]\nkind = "openai"\nbase_url = "{url}"\napi_keys = [{{ name = "main", value = "env.NEAR" }}]\n'
WARM_UP = 10
REST_S = 0.05

arrived_at: list[float] = []
arrived = threading.Event()


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        arrived_at.append(time.perf_counter())
        arrived.set()
        self.rfile.read(int(self.headers["content-length"]))
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
        self.wfile.write(head.encode() + ANSWER)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def measure(url: str, path: str, posts: int) -> list[float]:
    body = {"model": "near/m", "priority": "interactive", "messages": [{"role": "user", "content": "Hello."}]}
    took_ms = []
    with httpx.Client(base_url=url, timeout=30) as client:
        for _ in range(posts + WARM_UP):
            arrived.clear()
            began = time.perf_counter()
            client.post(path, json=body).raise_for_status()
            if not arrived.wait(30):
                raise SystemExit("the provider was not called within 30 s")
            took_ms.append((arrived_at[-1] - began) * 1000)
            time.sleep(REST_S)
    return took_ms[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--posts", type=int, default=200)
    parser.add_argument("--path", default="/v1/jobs", help="or /v1/chat/completions")
    asked = parser.parse_args()
    provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="ut-") as folder:
        Path(folder, "understudy.toml").write_text(CONFIG.format(url=f"http://127.0.0.1:{provider.server_port}/v1"))
        with serving("up", Path(folder), NEAR="sk-near") as (_, url):
            took_ms = measure(url, asked.path, asked.posts)
    cuts = statistics.quantiles(took_ms, n=20)
    print(f"{asked.path}: {asked.posts} posts, p50 {statistics.median(took_ms):.1f} ms, p95 {cuts[18]:.1f} ms")


if __name__ == "__main__":
    main()
