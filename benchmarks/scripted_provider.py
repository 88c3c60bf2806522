"""Providers that answer like OpenAI, fail according to a script, and record every call, in their own process.

    python benchmarks/scripted_provider.py '{"latency_s": 0.3, "faults": [{"provider": "lead", "from_s": 30, "to_s": 40,
        "do": "500"}]}'

The provider is the first part of the path: /lead/v1/chat/completions. A fault defines what it affects (`provider`,
`key`: the bearer token), when (`from_s`, `to_s`, counted from the first call), its maximum count (`times`), the random
`share` of these calls (`seed`), and the effect: a status from 400, e.g. "500" or "429" (with an optional
`retry_after_s`, after `refused_after_s`), or "stall": no answer for `stall_s`, then the connection is closed. It prints
its port. /calls lists all calls as [seconds since the first, provider, key, outcome], /count returns the number of
answered calls.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from random import Random

import uvloop
from aiohttp import web

ANSWERED = "answered"
CODES = {429: "rate_limit_exceeded", 529: "overloaded_error"}


@dataclass
class Fault:
    do: str
    from_s: float = 0.0
    to_s: float = float("inf")
    provider: str | None = None
    key: str | None = None
    times: float = float("inf")
    share: float = 1.0
    retry_after_s: float | None = None
    stall_s: float = 60.0
    hits: int = field(default=0, init=False)

    def strikes(self, provider: str, key: str, at_s: float, chance: Random) -> bool:
        if self.provider not in (None, provider) or self.key not in (None, key):
            return False
        if not self.from_s <= at_s < self.to_s or self.hits >= self.times:
            return False
        if chance.random() >= self.share:
            return False
        self.hits += 1
        return True


class Providers:
    def __init__(self, latency_s: float, refused_after_s: float, faults: list[Fault], seed: int) -> None:
        self._latency_s = latency_s
        self._refused_after_s = refused_after_s
        self._faults = faults
        self._chance = Random(seed)
        self._first: float | None = None
        self._calls: list[tuple[float, str, str, str]] = []

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        provider, at_s = request.match_info["provider"], now - self._first
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        fault = next((fault for fault in self._faults if fault.strikes(provider, key, at_s, self._chance)), None)
        self._calls.append((round(at_s, 4), provider, key, fault.do if fault else ANSWERED))
        if fault is None:
            await asyncio.sleep(self._latency_s)
            return web.json_response(_answer(body["model"]))
        if fault.do == "stall":
            await asyncio.sleep(fault.stall_s)
            if request.transport is not None:
                request.transport.close()
        elif self._refused_after_s:
            await asyncio.sleep(self._refused_after_s)
        status = 500 if fault.do == "stall" else int(fault.do)
        headers = {} if fault.retry_after_s is None else {"retry-after": f"{fault.retry_after_s:g}"}
        code = CODES.get(status, "server_error")
        error = {"error": {"message": "as the script says", "type": code, "code": code}}
        return web.json_response(error, status=status, headers=headers)

    async def calls(self, request: web.Request) -> web.Response:
        return web.json_response(self._calls)

    async def count(self, request: web.Request) -> web.Response:
        return web.json_response({"answered": sum(call[3] == ANSWERED for call in self._calls)})


def _answer(model: str) -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    return {
        **{"id": "c", "object": "chat.completion", "created": 1, "model": model},
        **{"choices": [choice], "usage": usage},
    }


async def serve(script: str) -> None:
    words = json.loads(script)
    faults = [Fault(**fault) for fault in words.get("faults", [])]
    providers = Providers(words.get("latency_s", 0.3), words.get("refused_after_s", 0.0), faults, words.get("seed", 1))
    app = web.Application()
    app.router.add_post("/{provider}/v1/chat/completions", providers.chat)
    app.router.add_get("/calls", providers.calls)
    app.router.add_get("/count", providers.count)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
