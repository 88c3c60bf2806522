"""What `run`, `watch` and `status` say about work that has stopped."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from ledger_help import call, new_worker, open_batch, put_back

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import Settled, StartedJob
from understudy.models.jobs.wait_reasons import Waiting, put_back_at
from understudy.models.queue import keys
from understudy.models.store import Store
from understudy.producer.status.standstill import awaited

PLACE = ("lead", "large", "lead:main")
LEAD = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_keys": [{"name": "main", "value": "env.A"}]}


@pytest.fixture
async def settings(redis_url: str) -> AsyncIterator[Settings]:
    async with redis.asyncio.Redis.from_url(redis_url) as queue:
        await queue.set(keys.PLANNER, "w1")
        yield Settings.model_validate({"redis_url": redis_url, "providers": {"lead": LEAD}})


def refused(job: StartedJob, cls: FailureClass, message: str, status: int | None, until: float) -> Settled:
    outcome = put_back(job, until, put_back_at("resting after failures", *PLACE))
    made = call(job, cls, message=message)
    made.status = status
    outcome.attempts = [made]
    return outcome


async def said(store: Store, settings: Settings, batch_id: str) -> str:
    view = await store.batches.view(batch_id)
    assert view is not None
    return (await awaited(settings, store, [view]))[1]


async def test_the_first_jobs_of_a_batch_that_all_wait_say_what_the_whole_batch_waits_for(
    store: Store, settings: Settings
) -> None:
    """The rest may not start until one of them has succeeded, so the planner says nothing about it."""
    batch_id, ids = await open_batch(store, 20)
    worker, until = await new_worker(store), await store.now() + 100
    (job,) = await store.claims.start(worker, ids[:1])
    words = "no connection to 127.0.0.1: connection refused"
    await store.claims.settle(worker, [refused(job, FailureClass.CONNECT, words, None, until)])
    sentence = await said(store, settings, batch_id)
    assert sentence.startswith("waits for lead/large (account lead:main): resting after failures until ")
    assert sentence.endswith(f"; the last call: {words} (http://127.0.0.1:1/v1)")


async def test_what_the_provider_said_last_is_cut_and_in_one_line(store: Store, settings: Settings) -> None:
    batch_id, ids = await open_batch(store, 1)
    worker, until = await new_worker(store), await store.now() + 100
    (job,) = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [refused(job, FailureClass.SERVER, "down\nfor  repairs " * 100, 503, until)])
    sentence = await said(store, settings, batch_id)
    assert "; the last call: server 503: down for repairs down" in sentence
    assert "\n" not in sentence and sentence.endswith("…") and len(sentence) < 400


async def test_a_pause_comes_first_and_a_lack_of_workers_before_what_the_planner_said(
    store: Store, settings: Settings
) -> None:
    batch_id, _ = await open_batch(store, 1)
    await store.planning.say_waiting({batch_id: Waiting("resting after failures at lead/large", "breaker", *PLACE)})
    assert (await said(store, settings, batch_id)).startswith("it waits: no worker is running")
    await store.batch_lifecycle.pause(batch_id, "by hand")
    assert (await said(store, settings, batch_id)).startswith("it is paused: by hand; `understudy resume")


async def test_of_what_has_ended_there_is_nothing_to_say(store: Store, settings: Settings) -> None:
    batch_id, _ = await open_batch(store, 1)
    await store.batch_lifecycle.cancel(batch_id)
    while await store.batch_lifecycle.cancel_slice():
        pass
    await store.batch_lifecycle.close_finished()
    assert await said(store, settings, batch_id) == ""
