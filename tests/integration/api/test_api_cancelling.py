"""When a job is cancelled over HTTP, its worker is told, and so are all that wait for its end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_help import Served, served
from ledger_help import new_worker
from rq.command import PUBSUB_CHANNEL_TEMPLATE

from understudy.models.config.settings import Settings
from understudy.models.queue import keys
from understudy.models.store import Store

SETTINGS = Settings.model_validate({"providers": {"alpha": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
JOB: dict[str, Any] = {"model": "alpha/m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    async with served(store, time.time, SETTINGS) as up:
        yield up


async def said_on(api: Served, channel: str, job_id: str) -> bytes:
    """The messages that are published on a channel when the job is deleted."""
    async with api.context.redis.pubsub(ignore_subscribe_messages=True) as pubsub, api.client() as http:
        await pubsub.subscribe(channel)
        assert (await http.delete(f"/v1/jobs/{job_id}")).status_code == 200
        async with asyncio.timeout(5):
            while (message := await pubsub.get_message(timeout=0.1)) is None:
                continue
    return bytes(message["data"])


async def submitted(api: Served) -> str:
    async with api.client() as http:
        answer = await http.post("/v1/jobs", json=JOB)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_the_worker_of_a_running_job_is_told_to_stop_it(api: Served, store: Store) -> None:
    job_id = await submitted(api)
    worker = await new_worker(store)
    assert await store.claims.start(worker, [job_id])
    assert await store.jobs.holder_of(job_id) == worker
    said = await said_on(api, PUBSUB_CHANNEL_TEMPLATE % worker, job_id)
    assert json.loads(said) == {"command": "stop-job", "job_id": job_id}


async def test_waiters_elsewhere_hear_that_a_queued_job_was_cancelled(api: Served, store: Store) -> None:
    job_id = await submitted(api)
    assert await store.jobs.holder_of(job_id) is None
    assert await said_on(api, keys.ENDED, job_id) == job_id.encode()
