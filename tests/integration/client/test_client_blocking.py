"""The client for code without coroutines: the same answers, from any thread, and no event loop is blocked."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ledger_help import new_worker, run_all

from understudy.models.config.settings import Settings
from understudy.models.store import open_store
from understudy.producer.client import BatchState, Client, JobState, RequestError, UnknownId, WaitTimeout

DEADLINE_S = 30.0


@pytest.fixture
def settings(empty_url: str | None, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "database_url": empty_url,
            "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
            "chains": {"default": {"steps": ["lead/large"]}},
        }
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings=settings) as opened:
        yield opened


def work(settings: Settings, ids: list[str]) -> None:
    """Do a worker's part of these jobs."""

    async def run() -> None:
        async with open_store(settings.database_url, settings.data) as store:
            await run_all(store, await new_worker(store), ids)

    asyncio.run(run())


def test_a_job_is_submitted_waited_for_and_read(client: Client, settings: Settings) -> None:
    job = client.submit("hi", custom_id="x")
    work(settings, [job.id])
    assert client.wait(job.id, timeout_s=DEADLINE_S).completion == {"answer": "yes"}
    assert client.get(job.id).state is JobState.SUCCEEDED
    with pytest.raises(UnknownId):
        client.get("job_x")
    with pytest.raises(RequestError):
        client.submit({"messages": 5})


def test_the_results_of_a_batch_are_iterated(client: Client, settings: Settings) -> None:
    batch = client.submit_batch(f"prompt {number}" for number in range(450))
    ids = [job.id for job in client.list_jobs(batch_id=batch.id, limit=1_000)]
    work(settings, ids)
    assert [result.custom_id for result in client.results(batch.id)] == [str(number) for number in range(1, 451)]
    some = client.results(batch.id)
    assert next(some).custom_id == "1"
    some.close()  # type: ignore[attr-defined]
    with pytest.raises(UnknownId):
        next(client.results("batch_x"))


def test_threads_share_a_client_and_do_not_wait_for_each_other(client: Client) -> None:
    waited_for = client.submit("slow")
    begun = threading.Event()

    def wait() -> JobState:
        begun.set()
        return client.wait(waited_for.id, timeout_s=DEADLINE_S).state

    with ThreadPoolExecutor(4) as threads:
        waiting = threads.submit(wait)
        assert begun.wait(DEADLINE_S)
        jobs = list(threads.map(client.submit, [f"prompt {number}" for number in range(20)]))
        assert not waiting.done()
        client.cancel(waited_for.id)
        assert waiting.result(DEADLINE_S) is JobState.CANCELLED
    assert len({job.id for job in jobs}) == 20


def test_a_batch_of_one_thread_is_seen_in_another(client: Client) -> None:
    with ThreadPoolExecutor(2) as threads:
        batch = threads.submit(client.submit_batch, ["a", "b"]).result(DEADLINE_S)
        assert threads.submit(client.cancel_batch, batch.id).result(DEADLINE_S).state is BatchState.CANCELLED


def test_a_wait_that_is_over_leaves_the_client_as_it_was(client: Client) -> None:
    job = client.submit("hi")
    with pytest.raises(WaitTimeout):
        client.wait(job.id, timeout_s=0.1)
    assert client.get(job.id).state is JobState.QUEUED


async def test_in_a_coroutine_it_refuses_instead_of_blocking(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="use AsyncClient here"):
        Client(data=tmp_path).open()


async def test_a_client_that_is_open_refuses_in_a_coroutine_too(client: Client) -> None:
    with pytest.raises(RuntimeError, match="use AsyncClient here"):
        client.submit("hi")
    assert (await asyncio.to_thread(client.submit, "hi")).state is JobState.QUEUED


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="not open"):
        client.submit("hi")


def test_closing_breaks_off_what_other_threads_wait_for(client: Client) -> None:
    job = client.submit("hi")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.wait, job.id)
        until = time.monotonic() + DEADLINE_S
        while not waiting.running() and time.monotonic() < until:
            time.sleep(0.01)
        client.close()
        with pytest.raises(RuntimeError, match="was closed during this call"):
            waiting.result(DEADLINE_S)


def test_a_ledger_that_cannot_be_opened_is_told_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    (tmp_path / "data").write_text("a file in its place")
    with pytest.raises(Exception, match="data"):
        Client(data=tmp_path / "data").open()
    assert threading.active_count() == before


SCRIPT = """
from understudy.producer.client import Client
client = Client(data="data")
client.open()
batch = client.submit_batch(["a", "b"], model="lead/large")
print(batch.total, client.get(client.submit("hi", model="lead/large").id).state)
"""


WAITS = """
import os, signal, threading, time
from understudy.producer.client import Client

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it otherwise

def interrupt():
    while not client._calls:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)

with Client(data="data") as client:
    job = client.submit("hi", model="lead/large")
    threading.Thread(target=interrupt).start()
    try:
        client.wait(job.id)
    except KeyboardInterrupt:
        print("interrupted,", client.get(job.id).state)
        while client._calls:
            time.sleep(0.01)
"""


def test_an_interrupted_wait_is_broken_off_and_the_client_goes_on(tmp_path: Path) -> None:
    assert typed(WAITS, tmp_path) == "interrupted, queued\n"


def test_a_call_that_is_interrupted_as_it_begins_does_not_go_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come before the client knows the call that it has just started."""
    job = client.submit("hi", model="lead/large")
    portal = client._portal
    assert portal is not None
    begin = portal.start_task_soon

    def interrupted(*args: Any) -> Any:
        monkeypatch.undo()
        begin(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(portal, "start_task_soon", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.wait(job.id)
    deadline = time.monotonic() + DEADLINE_S
    while client._calls:
        assert time.monotonic() < deadline, "the call goes on"
        time.sleep(0.01)
    assert client.get(job.id).state == "queued"


def test_a_plain_script_ends_though_it_forgot_to_close(tmp_path: Path) -> None:
    assert typed(SCRIPT, tmp_path) == "2 queued\n"


def typed(script: str, folder: Path) -> str:
    """What a script prints if it runs in this folder with its own installation."""
    (folder / "understudy.toml").write_text('[providers.lead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n')
    named = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=folder, env=named, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
