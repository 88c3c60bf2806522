"""Reservations and releases per second by one process, on a private server over loopback.

python benchmarks/limiter.py [tasks] [seconds]
"""

import asyncio
import sys
import time

import redis.asyncio
import uvloop
from own_servers import own_redis

from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant
from understudy.worker.limits.limiter import Limiter


async def hammer(limiter: Limiter, candidates: list[Candidate], ends_at: float, waits_s: list[float]) -> None:
    while (began := time.perf_counter()) < ends_at:
        grant = await limiter.reserve(candidates, 700)
        waits_s.append(time.perf_counter() - began)
        if isinstance(grant, Grant):
            await limiter.release(grant, 500)


async def measure(url: str, tasks: int, seconds: float, deployments: int) -> None:
    async with redis.asyncio.Redis.from_url(url) as connection:
        limiter = Limiter(Leases(connection, "bench"))
        candidates = [
            Candidate(Deployment("alpha", f"m{number}", "main", "alpha:main"), 10**9, 10**12, 10_000)
            for number in range(deployments)
        ]
        waits_s: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(hammer(limiter, candidates, began + seconds, waits_s) for _ in range(tasks)))
        elapsed_s = time.perf_counter() - began
        waits_s.sort()
        middle, late = (waits_s[int(len(waits_s) * share)] * 1000 for share in (0.5, 0.99))
        print(
            f"{tasks} tasks, {deployments} candidates: {len(waits_s) / elapsed_s:,.0f} reserve+release/s,"
            f" reserve p50 {middle:.1f} ms, p99 {late:.1f} ms"
        )


async def main(tasks: int, seconds: float) -> None:
    with own_redis() as url:
        for deployments in (1, 3):
            await measure(url, tasks, seconds, deployments)


if __name__ == "__main__":
    numbers = [float(word) for word in sys.argv[1:]]
    uvloop.run(main(int(numbers[0]) if numbers else 500, numbers[1] if numbers[1:] else 3.0))
