"""`understudy prune` next to a running server, which deletes old work; and `cancel` before a batch was filled."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from commands import Done
from stage_hands import DEADLINE_S, Mock, Scene, alone_and_on_servers, until

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store import open_store

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

BODY = {"model": "alpha/m", "messages": [{"role": "user", "content": "Hello."}]}
LINE = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": BODY}
GONE = {"batches": 1, "jobs": 1, "files": 1, "deliveries": 0, "names": 2, "tallies": 0}


def prune(scene: Scene, *words: str) -> Done:
    return scene.type("prune", *words)


def stored(scene: Scene) -> list[Path]:
    return list((scene.folder / ".understudy" / "files").glob("file_*"))


@pytest.mark.slow
@alone_and_on_servers
def test_what_ended_is_deleted_with_its_bytes_and_counted(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    server, url = scene.serve()
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
        content = json.dumps(LINE).encode()
        file = http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"}).json()
        asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = http.post("/v1/batches", json=asked, headers={"Idempotency-Key": "b"}).json()
        job = http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "j"}, params={"wait": 30}).json()
        assert job["state"] == "succeeded"
        server.until(lambda: http.get(f"/v1/batches/{batch['id']}").json()["status"] == "completed", "it completes")

        kept = json.loads(prune(scene, "--older-than", "1h", "--json").stdout)
        assert not any(kept[each] for each in GONE)
        until(lambda: prune_counts(scene, "--dry-run") == GONE, "all of it is old enough")
        assert len(stored(scene)) == 1
        assert http.get(f"/v1/jobs/{job['id']}").status_code == 200, "a dry run deletes nothing"
        assert prune_counts(scene) == GONE
        assert not stored(scene)
        for path in (f"/v1/jobs/{job['id']}", f"/v1/batches/{batch['id']}", f"/v1/files/{file['id']}"):
            assert http.get(path).status_code == 404
        assert http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "j"}).json()["id"] != job["id"]
    for table in ("batch", "file", "audit"):
        assert scene.ledger.count(table) == (2 if table == "audit" else 0)


def prune_counts(scene: Scene, *words: str) -> dict[str, int]:
    done = prune(scene, "--older-than", "0.01s", "--json", *words)
    assert done.returncode == 0, done.stderr
    assert "deleted" in done.stderr
    told = json.loads(done.stdout)
    return {each: told[each] for each in GONE}


def test_a_batch_that_is_still_being_filled_is_cancelled_from_the_command_line(scene: Scene) -> None:
    """None of its lines counts then, because it was never accepted as a whole."""
    batch_id = asyncio.run(half_filled(scene))
    cancelled = scene.type("cancel", batch_id)
    assert cancelled.returncode == 0
    (batch,) = scene.ledger.rows("SELECT state, total FROM batch")
    assert (batch.state, batch.total) == ("cancelled", 0)
    assert scene.ledger.count("tally") == 0, "rows that were never accepted do not end"
    assert scene.ledger.count("file WHERE batch_id IS NOT NULL") == 0


async def half_filled(scene: Scene) -> str:
    async with open_store(None, scene.folder / ".understudy") as store:
        deadline, file_id = await store.now() + 600, new_id("file")
        await store.files.add(file_id, "default", "in.jsonl", 3, 2)
        batch_id = new_id("batch")
        await store.intake.accept_batch(NewBatch(batch_id, expires_at=deadline, input_file_id=file_id))
        assert await store.filling.claim("api_1", 60)
        chain = Chain(steps=(Step(provider="alpha", model="m"),))
        job = NewJob(new_id("job"), "{}", chain, "one", 1, 3, Priority.BULK)
        assert await store.filling.fill(batch_id, "api_1", 60, [job])
    return batch_id


def test_an_age_that_is_none_is_refused(scene: Scene) -> None:
    assert prune(scene, "--older-than", "soon").returncode == 2
    assert prune(scene, "--older-than", "30d").returncode == 2, "there is no ledger here"
