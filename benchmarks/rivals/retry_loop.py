"""What a careful script does without a queue: a semaphore, and retries with exponential backoff that heed Retry-After.

    python benchmarks/rivals/retry_loop.py SPEC.json     (what a SPEC is: `benchmarks/rivals.py`)

Each process has slots of its own and knows nothing of the others. A job tries a step up to three times, then the next
step, and starts over after the last. A 429 does not count as a try: it waits for `Retry-After`, or with the backoff.
"""

import asyncio
import json
import random
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

TRIES = 3
BACKOFF_S = (0.5, 8.0)


async def job(client: httpx.AsyncClient, group: dict[str, Any], body: dict[str, Any], ends_at: float) -> None:
    for step in cycle(group["steps"]):
        tries = refusals = 0
        while tries < TRIES and time.monotonic() < ends_at:
            headers = {"authorization": f"Bearer {random.choice(step['keys'])}"}
            try:
                reply = await client.post(f"{step['base_url']}/chat/completions", json=body, headers=headers)
            except httpx.HTTPError:
                reply = None
            if reply is not None and reply.status_code == 200:
                return
            refused = reply is not None and reply.status_code == 429
            refusals, tries = refusals + refused, tries + (not refused)
            await asyncio.sleep(pause_s(reply, tries + refusals))
        if time.monotonic() >= ends_at:
            return


def pause_s(reply: httpx.Response | None, tries: int) -> float:
    low, high = BACKOFF_S
    backoff = min(low * 2.0 ** (tries - 1), high) * (0.5 + random.random())
    if reply is not None and "retry-after-ms" in reply.headers:
        return float(reply.headers["retry-after-ms"]) / 1000 + 0.1 * random.random()
    if reply is not None and "retry-after" in reply.headers:
        return float(reply.headers["retry-after"]) + 0.1 * random.random()
    return backoff


async def main(spec: dict[str, Any]) -> None:
    ends_at = time.monotonic() + spec["seconds"]
    groups, bodies = cycle(spec["groups"]), cycle(spec["bodies"])
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=spec["timeout_s"], limits=limits) as client:

        async def slot() -> None:
            while time.monotonic() < ends_at:
                await job(client, next(groups), next(bodies), ends_at)

        slots = [asyncio.create_task(slot()) for _ in range(spec["in_flight"])]
        await asyncio.sleep(spec["seconds"])
        for each in slots:
            each.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
