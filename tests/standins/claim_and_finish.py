"""The smallest worker on our base class: it claims tickets and finishes them, without jobs."""

from redis.asyncio import Redis

from worker.rq_bridge import Bridge
from worker.rq_worker import RegisteredWorker


class ClaimAndFinish(RegisteredWorker):
    async def main(self, redis: Redis, bridge: Bridge, *, burst: bool) -> int:
        done = 0
        while ids := await bridge.claim(100):
            await bridge.finish(ids)
            done += len(ids)
        return done
