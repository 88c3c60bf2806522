"""The faults of a chaos run. A fault lasts a while, and leaves everything as it was except what it killed.

The names are what the log of a run shows. Everything that a fault may choose comes from its random source, so a seed
stands for one schedule; when exactly each fault hits depends on the machine.
"""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import psutil
from chaos_servers import rest
from chaos_world import Alone, Servers, World
from redis import Redis
from redis.exceptions import RedisError

BAD_TIMES = [
    *({"fail": each} for each in ("unavailable", "server", "drop", "overloaded", "rate_limit_no_hint")),
    *({"fail": each, "probability": 0.3} for each in ("unavailable", "server", "rate_limit_no_hint")),
    {"fail": "rate_limit", "retry_after_s": 2.0, "probability": 0.5},
]

Fault = Callable[[Any, Random], None]


def kill_a_worker(world: World, chance: Random) -> None:
    workers = world.workers()
    if workers:
        world.kill_workers([chance.choice(workers)])


def kill_everything(world: World, chance: Random) -> None:
    world.kill_all()


def suspend_a_worker(world: World, chance: Random) -> None:
    """Sometimes for longer than its lease: its jobs then run elsewhere when it wakes up."""
    workers = world.workers()
    if not workers:
        return
    victim = chance.choice(workers)
    with world.suspended(victim):
        rest(chance.choice([1.0, 8.0]))


def drain_a_worker(world: World, chance: Random) -> None:
    workers = world.workers()
    if workers:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGTERM)


def trouble_a_provider(world: World, chance: Random) -> None:
    names = chance.choice([("alpha",), ("beta",), ("alpha", "beta")])
    bad = chance.choice(BAD_TIMES)
    world.script([{"provider": name, **bad} for name in names])
    rest(chance.uniform(2.0, 8.0))
    world.script([])


def kill_the_embedded_queue(world: Alone, chance: Random) -> None:
    for process in psutil.Process(world.up.pid).children(recursive=True) if world.up.running else ():
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("valkey"):
                process.kill()


def wipe_the_embedded_queue(world: Alone, chance: Random) -> None:
    if url := world.queue_url():
        with suppress(RedisError), Redis.from_url(url) as connection:
            connection.flushall()


def lock_the_ledger(world: Alone, chance: Random) -> None:
    """Another program writes to the file and takes long."""
    with sqlite3.connect(world.ledger_file, timeout=5.0, isolation_level=None) as connection:
        with suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            rest(chance.uniform(1.0, 6.0))
            connection.execute("ROLLBACK")
    connection.close()


def kill_the_api(world: Servers, chance: Random) -> None:
    world.api.kill_all()


def wipe_redis(world: Servers, chance: Random) -> None:
    world.redis.wipe()


def restart_redis(world: Servers, chance: Random) -> None:
    world.redis.kill(forget=chance.random() < 0.5)
    rest(chance.uniform(0.0, 4.0))
    world.redis.start()


def restart_postgres(world: Servers, chance: Random) -> None:
    world.postgres.stop(chance.choice([signal.SIGINT, signal.SIGQUIT]))
    rest(chance.uniform(0.0, 5.0))
    world.postgres.start()


def cut_postgres_sessions(world: Servers, chance: Random) -> None:
    world.postgres.cut_sessions()


def make_postgres_read_only(world: Servers, chance: Random) -> None:
    world.postgres.set_read_only(True)
    rest(chance.uniform(1.0, 8.0))
    world.postgres.set_read_only(False)


def slow_a_network(world: Servers, chance: Random) -> None:
    proxy = chance.choice([world.redis.proxy, world.postgres.proxy])
    proxy.delay_s = chance.uniform(0.05, 0.4)
    rest(chance.uniform(2.0, 6.0))
    proxy.delay_s = 0.0


def silence_a_network(world: Servers, chance: Random) -> None:
    """Packets get lost, as behind a firewall that forgot a connection."""
    proxy = chance.choice([world.redis.proxy, world.postgres.proxy])
    proxy.silent = True
    rest(chance.uniform(1.0, 10.0))
    if chance.random() < 0.5:
        proxy.cut()
    proxy.silent = False


def cut_a_network(world: Servers, chance: Random) -> None:
    chance.choice([world.redis.proxy, world.postgres.proxy]).cut()


EVERYWHERE: tuple[Fault, ...] = (
    *(kill_a_worker, kill_a_worker, suspend_a_worker, drain_a_worker),
    *(trouble_a_provider, trouble_a_provider, kill_everything),
)
ALONE: tuple[Fault, ...] = (*EVERYWHERE, kill_the_embedded_queue, wipe_the_embedded_queue, lock_the_ledger)
ON_SERVERS: tuple[Fault, ...] = (
    *EVERYWHERE,
    *(kill_the_api, wipe_redis, restart_redis, restart_postgres, cut_postgres_sessions),
    *(make_postgres_read_only, slow_a_network, silence_a_network, cut_a_network),
)
