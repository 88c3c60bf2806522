"""Chaos: single jobs and batches under kills, suspensions, outages and failing providers; then everything is counted.

CHAOS_SEED chooses the schedule of faults, CHAOS_MINUTES how long they go on, half of it on each ledger: `make chaos`.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from chaos_checks import assert_nothing_was_lost_or_doubled
from chaos_faults import ALONE, ON_SERVERS, Fault
from chaos_load import Load
from chaos_servers import OwnPostgres, OwnRedis, own_folder
from chaos_world import Alone, Servers, World, wait_until_ready
from stage_hands import Mock, Scene, until

from understudy.models.store import open_store

SEED = int(os.environ.get("CHAOS_SEED", "1"))
MINUTES = float(os.environ.get("CHAOS_MINUTES", "2"))
PAUSE_S = (0.5, 3.0)
"""Between two faults."""

CALM_DEADLINE_S = 300.0
"""Within this time after the last fault everything must have ended."""

pytestmark = [pytest.mark.servers, pytest.mark.timeout(MINUTES * 60 + 2 * CALM_DEADLINE_S)]


@pytest.fixture
def alone(tmp_path: Path, providers: Callable[[str], Mock]) -> Iterator[Alone]:
    with ExitStack() as stack:
        scene = Scene(tmp_path, {})
        stack.callback(scene.close)
        yield Alone(scene, providers(""))


@pytest.fixture
def servers(tmp_path: Path, providers: Callable[[str], Mock]) -> Iterator[Servers]:
    with ExitStack() as stack:
        redis = OwnRedis(stack.enter_context(own_folder()))
        stack.callback(redis.close)
        postgres = OwnPostgres(stack.enter_context(own_folder()))
        stack.callback(postgres.close)
        asyncio.run(migrated(postgres.straight_url))
        scene = Scene(tmp_path, {"REDIS_URL": redis.url, "DATABASE_URL": postgres.url})
        stack.callback(scene.close)
        yield Servers(scene, providers(""), redis, postgres)


async def migrated(url: str) -> None:
    async with open_store(url, Path(), migrate=True):
        pass


def go_through(world: World, faults: tuple[Fault, ...]) -> None:
    chance, load = Random(SEED), Load(SEED, lambda: world.url, world.open_jobs)
    world.start()
    wait_until_ready(world)
    load.start()
    ends = time.monotonic() + MINUTES * 30
    while time.monotonic() < ends:
        fault = chance.choice(faults)
        world.note(fault.__name__)
        fault(world, chance)
        time.sleep(chance.uniform(*PAUSE_S))
    world.note("calm")
    wait_until_ready(world)
    load.finish()
    assert not load.wrong
    assert load.accepted.jobs > 100, "the faults must hit work"
    world.note(f"{load.accepted.jobs} jobs accepted")
    until(lambda: world.ledger.count("batch WHERE ended_at IS NULL") == 0, "all batches end", CALM_DEADLINE_S)
    until(lambda: world.open_jobs() == 0, "all jobs end", CALM_DEADLINE_S)
    world.note("all have ended")
    world.note(str(assert_nothing_was_lost_or_doubled(world, load.accepted)))


def told(world: World, faults: tuple[Fault, ...]) -> None:
    """Print the log of what was done: pytest shows it for a failure, and `make chaos` always."""
    try:
        go_through(world, faults)
    finally:
        world.rest_in_peace()
        said = [f"{name}: {line}" for name, each in world.processes.items() for line in each.said.splitlines()[-15:]]
        sys.stdout.write("\n".join(["", f"seed {SEED}", *world.log, "said at last:", *said, ""]))


def test_chaos_on_one_data_folder_loses_and_doubles_nothing(alone: Alone) -> None:
    told(alone, ALONE)


def test_chaos_on_redis_and_postgresql_loses_and_doubles_nothing(servers: Servers) -> None:
    told(servers, ON_SERVERS)
