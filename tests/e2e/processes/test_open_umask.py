"""Commands that start with a permissive umask: only their owner can read the files that they leave."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from stage_hands import Mock, Scene, until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    kept = os.umask(0o000)
    yield
    os.umask(kept)


def open_ones(folder: Path) -> list[str]:
    """The paths of a folder that other users may read."""
    found = {each: stat.S_IMODE(each.lstat().st_mode) for each in [folder, *folder.rglob("*")] if not each.is_symlink()}
    return sorted(f"{path} {mode:o}" for path, mode in found.items() if mode & 0o077)


def test_everything_that_up_writes_into_its_folder_is_its_owners_alone(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers(""))
    up, url = scene.serve("up")
    data = scene.folder / ".understudy"
    with httpx.Client(base_url=url, timeout=30) as http:
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
        body = {"model": "alpha/m", "messages": [{"role": "user", "content": "hello"}]}
        content = httpx.Response(200, json={**line, "body": body}).content
        upload = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}).json()
        words = {"input_file_id": upload["id"], "endpoint": line["url"], "completion_window": "24h"}
        batch = http.post("/v1/batches", json=words).json()
        until(lambda: http.get(f"/v1/batches/{batch['id']}").json()["status"] == "completed", "the batch is done")
        written = {each.name for each in data.rglob("*")}
        assert {"ledger.db", upload["id"]} <= written
        assert open_ones(data) == []
    up.end()
    assert open_ones(data) == []
