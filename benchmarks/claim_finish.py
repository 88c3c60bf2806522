"""The cost of RQ's bookkeeping: claiming and finishing tickets through the bridge, compared with a stock SimpleWorker.

    python benchmarks/claim_finish.py [--tickets 50000] [--stock-tickets 2000] [--redis-url URL]

Both run no-op jobs in one process, one after the other, on the same server: by default a private one on a socket. The
database is flushed. Trust the ratio rather than the absolute numbers.
"""

import argparse
import asyncio
import logging
import sys
import time
import types

import uvloop
from own_servers import own_redis
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from understudy.models.ids import new_id
from understudy.models.queue.keys import JOB_FUNCTION, QUEUES
from understudy.models.queue.tickets import stage
from understudy.models.state import Priority
from understudy.worker.rq.bridge import CLAIM_MAX, CLOSE_MAX, Bridge


def tickets(count: int) -> list[tuple[str, Priority]]:
    return [(new_id("job"), Priority.BULK) for _ in range(count)]


async def through_the_bridge(url: str, count: int) -> tuple[float, float]:
    """Tickets staged and tickets claimed and finished, per second."""
    async with Redis.from_url(url) as redis, Bridge(redis, "bench", time.time) as bridge:
        await redis.flushdb()
        staged = tickets(count)
        started = time.perf_counter()
        await stage(redis, staged)
        staging_s = time.perf_counter() - started
        started = time.perf_counter()
        done: list[str] = []
        while ids := await bridge.claim(CLAIM_MAX):
            done += ids
            if len(done) >= CLOSE_MAX:
                await bridge.finish(done)
                done.clear()
        await bridge.finish(done)
        return count / staging_s, count / (time.perf_counter() - started)


async def stage_for_stock(url: str, count: int) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        await stage(redis, tickets(count))


def through_a_stock_worker(url: str, count: int) -> float:
    """Tickets run per second."""
    asyncio.run(stage_for_stock(url, count))
    module, function = JOB_FUNCTION.rsplit(".", 1)
    stand_in = types.ModuleType(module)
    setattr(stand_in, function, lambda job_id: None)
    sys.modules[module] = stand_in
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    with SyncRedis.from_url(url) as connection:
        worker = SimpleWorker(list(QUEUES), connection=connection, serializer=JSONSerializer)
        started = time.perf_counter()
        worker.work(burst=True, logging_level="WARNING")
        taken_s = time.perf_counter() - started
        if worker.failed_job_count or connection.zcard("rq:finished:bulk") != count:
            raise RuntimeError("the stock worker did not run every ticket")
    return count / taken_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tickets", type=int, default=50_000)
    parser.add_argument("--stock-tickets", type=int, default=2_000)
    parser.add_argument("--redis-url", help="this database is FLUSHED; by default, a private server is started")
    arguments = parser.parse_args()
    if arguments.redis_url:
        compare(arguments.redis_url, arguments)
    else:
        with own_redis() as url:
            compare(url, arguments)


def compare(url: str, arguments: argparse.Namespace) -> None:
    stock = through_a_stock_worker(url, arguments.stock_tickets)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        staged, ours = runner.run(through_the_bridge(url, arguments.tickets))
    print(f"staged                {staged:>9,.0f} tickets/s")
    print(f"claimed and finished  {ours:>9,.0f} tickets/s")
    print(f"stock SimpleWorker    {stock:>9,.0f} tickets/s")
    print(f"ratio                 {ours / stock:>9.1f}")


if __name__ == "__main__":
    main()
