"""The smallest worker on our base class: it claims tickets and finishes them, without jobs."""

from redis.asyncio import Redis

from understudy.worker.rq.bridge import Bridge
from understudy.worker.rq.worker import RegisteredWorker


class ClaimAndFinish(RegisteredWorker):
    async def main(self, redis: Redis, bridge: Bridge, *, burst: bool) -> int:
        done = 0
        while ids := await bridge.claim(100):
            await bridge.finish(ids)
            done += len(ids)
        return done
