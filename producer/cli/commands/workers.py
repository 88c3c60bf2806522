"""`understudy workers`: live workers and waiting tickets, read without running or unpickling anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from rich.markup import escape

from understudy.models.config.settings import Settings
from understudy.models.queue.keys import QUEUES
from understudy.models.queue.tickets import is_suspended, tickets_waiting
from understudy.models.store import Store
from understudy.models.tables import Worker
from understudy.producer.cli import options
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.number_format import ago
from understudy.producer.queue_access import in_time, queue_of
from understudy.producer.status import printing as show
from understudy.producer.status.waiting import NO_WORKER

app = options.Commands()

SUSPENDED = "claiming is suspended; `rq resume` resumes it"


@dataclass(frozen=True, slots=True)
class Queues:
    """Tickets waiting in each queue (None: the Redis key is not a queue), and whether claiming is suspended."""

    tickets: Mapping[str, int | None]
    suspended: bool


@app.command()
def workers(installation: Installation = HERE, as_json: options.AsJson = False) -> None:
    """Show the live worker processes, their running jobs, and the tickets waiting in the queues.

    With --json, one document.
    """

    async def work(settings: Settings, store: Store) -> None:
        alive, jobs, now = await store.workers.live(), await store.metrics.running_by_worker(), await store.now()
        queues = await _queues(settings)
        if as_json:
            show.print_json(_document(alive, jobs, queues))
        else:
            _print(alive, jobs, queues, now)

    installation.on_ledger(work)


async def _queues(settings: Settings) -> Queues | None:
    """None: Redis is unreachable."""
    async with queue_of(settings) as queue:
        return None if queue is None else await in_time(_seen(queue))


async def _seen(queue: Redis) -> Queues:
    return Queues(await tickets_waiting(queue), await is_suspended(queue))


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
        return "Redis is unreachable: the number of waiting tickets is unknown"
    counts = ("not a queue" if (count := queues.tickets[name]) is None else f"{count:,}" for name in QUEUES)
    return "tickets: " + ", ".join(f"{name} {count}" for name, count in zip(QUEUES, counts, strict=True))
