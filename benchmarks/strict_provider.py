"""A provider that enforces its limits strictly and answers like OpenAI, in its own process.

    python benchmarks/strict_provider.py KIND REQUESTS_PER_MINUTE TOKENS_PER_MINUTE (0: no limit) HEADERS (1 or 0)

It prints its port; /count returns the numbers of calls it accepted and refused since the first one.
"""

import asyncio
import sys
import time
from collections import deque
from typing import Protocol

import uvloop
from aiohttp import web

LATENCY_S = 0.3
MINUTE_S = 60.0


class Meter(Protocol):
    limit: float

    def room(self, now: float) -> float: ...
    def take(self, amount: float, now: float) -> None: ...
    def wait_s(self, amount: float, now: float) -> float: ...
    def reset_s(self, now: float) -> float: ...


class Bucket:
    """A token bucket with a capacity of one second's worth, at least one."""

    def __init__(self, limit: float, least: float = 1.0) -> None:
        self.limit, self._rate = limit, limit / MINUTE_S
        self.size = max(self._rate, least)
        self._level, self._at = self.size, 0.0

    def room(self, now: float) -> float:
        self._level, self._at = min(self.size, self._level + (now - self._at) * self._rate), now
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.room(now) - amount

    def wait_s(self, amount: float, now: float) -> float:
        return max((min(amount, self.size) - self.room(now)) / self._rate, 0.0)

    def reset_s(self, now: float) -> float:
        return (self.size - self.room(now)) / self._rate


class FixedWindow:
    """A fixed amount per minute; the first minute starts with the first call."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._began, self._used = -MINUTE_S, 0.0

    def room(self, now: float) -> float:
        if now - self._began >= MINUTE_S:
            self._began, self._used = now, 0.0
        return self.limit - self._used

    def take(self, amount: float, now: float) -> None:
        self._used += amount

    def wait_s(self, amount: float, now: float) -> float:
        return self.reset_s(now) if self.room(now) < amount else 0.0

    def reset_s(self, now: float) -> float:
        return max(self._began + MINUTE_S - now, 0.0)


class SlidingWindow:
    """A fixed amount in any sliding minute."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._taken: deque[tuple[float, float]] = deque()
        self._used = 0.0

    def room(self, now: float) -> float:
        while self._taken and self._taken[0][0] <= now - MINUTE_S:
            self._used -= self._taken.popleft()[1]
        return self.limit - self._used

    def take(self, amount: float, now: float) -> None:
        self._taken.append((now, amount))
        self._used += amount

    def wait_s(self, amount: float, now: float) -> float:
        missing = amount - self.room(now)
        for at, each in self._taken:
            if missing <= 0:
                break
            missing -= each
            wait = at + MINUTE_S - now
        else:
            return self.reset_s(now) if missing > 0 else 0.0
        return wait if amount > self.room(now) else 0.0

    def reset_s(self, now: float) -> float:
        return self._taken[-1][0] + MINUTE_S - now if self._taken else 0.0


KINDS = {"bucket": Bucket, "fixed": FixedWindow, "sliding": SlidingWindow}


class Provider:
    """Refuses calls beyond any limit, charges the cost of the answer, and reports what is left."""

    def __init__(self, kind: str, rpm: float, tpm: float, headers: bool) -> None:
        self._meters: dict[str, Meter] = {}
        if rpm:
            self._meters["requests"] = KINDS[kind](rpm)
        if tpm:
            self._meters["tokens"] = KINDS[kind](tpm)
        self._headers = headers
        self._counts = {"accepted": 0, "refused": 0, "tokens": 0}
        self._first = 0.0

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        now = time.monotonic()
        self._first = self._first or now
        words = sum(len(message["content"]) for message in body["messages"]) // 4
        output = 40
        costs = {"requests": 1.0, "tokens": float(words + output)}
        short = [meter.wait_s(costs[name], now) for name, meter in self._meters.items()]
        if max(short, default=0.0) > 1e-6:
            self._counts["refused"] += 1
            headers = {"retry-after-ms": f"{max(short) * 1000:.0f}"} if self._headers else {}
            error = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
            return web.json_response(error, status=429, headers={**self._told(now), **headers})
        for name, meter in self._meters.items():
            meter.take(costs[name], now)
        self._counts["accepted"] += 1
        self._counts["tokens"] += words + output
        told = self._told(now)
        await asyncio.sleep(LATENCY_S)
        usage = {"prompt_tokens": words, "completion_tokens": output, "total_tokens": words + output}
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return web.json_response({**answer, "usage": usage}, headers=told)

    def _told(self, now: float) -> dict[str, str]:
        if not self._headers:
            return {}
        told = {}
        for name, meter in self._meters.items():
            told[f"x-ratelimit-limit-{name}"] = f"{meter.limit:.0f}"
            told[f"x-ratelimit-remaining-{name}"] = f"{max(meter.room(now), 0):.0f}"
            told[f"x-ratelimit-reset-{name}"] = f"{meter.reset_s(now) * 1000:.0f}ms"
        return told

    async def count(self, request: web.Request) -> web.Response:
        return web.json_response({**self._counts, "seconds": time.monotonic() - self._first if self._first else 0.0})


async def serve(kind: str, rpm: str, tpm: str, headers: str) -> None:
    provider = Provider(kind, float(rpm), float(tpm), headers == "1")
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.chat)
    app.router.add_get("/count", provider.count)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:5]))
