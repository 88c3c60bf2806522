"""`understudy workers`: who works, and what waits in the queues, read without running or unpickling anything; and
`understudy health`, what a container is asked."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from redis.exceptions import RedisError
from rich.markup import escape

from models.keys import QUEUES
from models.settings import Settings, SettingsError
from models.store import Store
from models.tables import Worker
from models.tickets import is_suspended, tickets_waiting
from producer import cli, show
from producer.durations import ago
from producer.health import tell
from producer.waiting import ASK_REDIS_S, NO_WORKER, queue_of

app = typer.Typer()

SUSPENDED = "claiming is suspended; `rq resume` ends that"


@dataclass(frozen=True, slots=True)
class Queues:
    """How many tickets wait in each queue (None: Redis holds something else there), and whether any are claimed."""

    tickets: Mapping[str, int | None]
    suspended: bool


@app.command()
def workers(config: cli.Config = None, data: cli.Data = None, as_json: cli.AsJson = False) -> None:
    """The worker processes whose leases run, the jobs that each has, and the tickets that wait in the queues.

    With --json, one document.
    """

    async def work(settings: Settings, store: Store) -> None:
        alive, jobs, now = await store.live_workers(), await store.running_by_worker(), await store.now()
        queues = await _queues(settings)
        if as_json:
            show.print_json(_document(alive, jobs, queues))
        else:
            _print(alive, jobs, queues, now)

    cli.on_ledger(config, data, work)


@app.command()
def health(config: cli.Config = None, data: cli.Data = None) -> None:
    """Whether the service that writes the health file works: exit code 0 or 1, and one sentence.

    `up`, `api`, `worker` and `run` write the file that UNDERSTUDY_HEALTH_FILE or the setting health_file names.
    """
    with cli.plain_errors():
        file = cli.settings_from(config, data).health_file
        if file is None:
            raise SettingsError("no health file is named; set UNDERSTUDY_HEALTH_FILE for this command and the service")
    raise typer.Exit(tell(file))


async def _queues(settings: Settings) -> Queues | None:
    """None: Redis cannot be asked."""
    async with queue_of(settings) as queue:
        if queue is None:
            return None
        try:
            async with asyncio.timeout(ASK_REDIS_S):
                return Queues(await tickets_waiting(queue), await is_suspended(queue))
        except (RedisError, OSError, TimeoutError):
            return None


def _document(alive: Sequence[Worker], jobs: Mapping[str, int], queues: Queues | None) -> dict[str, Any]:
    return {
        "workers": [{**each.model_dump(), "running": jobs.get(each.id, 0)} for each in alive],
        "tickets": queues and dict(queues.tickets),
        "suspended": queues and queues.suspended,
    }


def _print(alive: Sequence[Worker], jobs: Mapping[str, int], queues: Queues | None, now: float) -> None:
    out = show.page()
    if alive:
        table = show.new_table("worker", "host", "process", "jobs", "started")
        for each in alive:
            running = f"{jobs.get(each.id, 0)}/{each.concurrency}"
            table.add_row(each.id, escape(each.host), str(each.pid), running, ago(each.started_at, now))
        out.print(table)
    else:
        out.print(NO_WORKER.reason, soft_wrap=True)
    out.print(_waiting(queues), soft_wrap=True)
    if queues and queues.suspended:
        out.print(SUSPENDED)


def _waiting(queues: Queues | None) -> str:
    if queues is None:
        return "Redis cannot be reached: how many tickets wait is not known"
    counts = ("not a queue" if (count := queues.tickets[name]) is None else f"{count:,}" for name in QUEUES)
    return "tickets: " + ", ".join(f"{name} {count}" for name, count in zip(QUEUES, counts, strict=True))
