"""A disk that fills up while work is accepted: the error says so, and nothing of the refused work stays."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ledger_help import filled_batch, new_jobs
from sqlalchemy import text

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewBatch
from understudy.models.store import Store, StoreBusy, open_store
from understudy.models.store.work import discarding
from understudy.models.store.work.filling import ABANDONED_AFTER_S
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.runs import accept

PROVIDERS = {"alpha": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}
LINES = 6_000
MB = 1_000_000


class Usage(NamedTuple):
    free: int


async def count(store: Store, table: str) -> int:
    async with store._db.read() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


def write_lines(folder: Path) -> Path:
    source = folder / "in.jsonl"
    with source.open("w") as file:
        for number in range(LINES):
            file.write(json.dumps({"custom_id": f"line-{number}", "prompt": "x" * 500, "model": "alpha/m"}) + "\n")
    return source


async def accept_lines(store: Store, folder: Path) -> None:
    settings = Settings.model_validate({"data": folder, "providers": PROVIDERS})
    await accept(store, settings, write_lines(folder), Shape(), NewBatch("batch_1"), skip_bad=False)


@pytest.mark.slow
async def test_an_input_that_does_not_fit_is_refused_and_leaves_neither_rows_nor_a_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(None, tmp_path) as store:
        disk = 20 * MB

        def usage(folder: Path) -> Usage:
            return Usage(disk - sum(each.stat().st_size for each in folder.glob("ledger.db*")))

        monkeypatch.setattr(shutil, "disk_usage", usage)
        before = (tmp_path / "ledger.db").stat().st_size
        with pytest.raises(StoreBusy, match=r"is full: \d+ MB are left and \d+ MB are needed; free some space"):
            await accept_lines(store, tmp_path)
        assert [await count(store, each) for each in ("batch", "job", "job_input")] == [0, 0, 0]

        disk = 500 * MB
        await accept_lines(store, tmp_path)
        assert await count(store, "job") == LINES
        await store.batch_lifecycle.cancel("batch_1")
        while await store.batch_lifecycle.cancel_slice():
            continue
        await store.batch_lifecycle.close_finished()
        await store.retention.discard_batch("batch_1")
    assert (tmp_path / "ledger.db").stat().st_size < before + MB


async def test_on_a_disk_that_takes_little_a_batch_is_deleted_in_small_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_delete = discarding.delete_jobs

    async def on_a_full_disk(connection: Any, ids: Sequence[str]) -> None:
        if len(ids) > 30:
            raise StoreBusy("the disk is full")
        await really_delete(connection, ids)

    monkeypatch.setattr(discarding, "delete_jobs", on_a_full_disk)
    async with open_store(None, tmp_path) as store:
        batch_id, _ = await filled_batch(store, 100)
        await store.retention.discard_batch(batch_id)
        assert await count(store, "job") == 0


async def test_what_could_not_be_deleted_when_it_was_refused_is_deleted_by_upkeep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(connection: Any, ids: Sequence[str]) -> None:
        raise StoreBusy("the disk is full")

    async with open_store(None, tmp_path) as store:
        batch_id, _ = await filled_batch(store, 3)
        with monkeypatch.context() as patched:
            patched.setattr(discarding, "delete_jobs", full)
            await store.retention.discard_refused(batch_id)
            assert await count(store, "job") == 3
        assert await store.filling.clear_never_opened() == batch_id
        assert await store.filling.clear_never_opened() is None
        assert [await count(store, each) for each in ("batch", "job")] == [0, 0]


async def test_a_submission_that_was_killed_is_deleted_when_nothing_was_written_for_an_hour(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    async with open_store(None, tmp_path, clock=lambda: now) as store:
        batch_id, _ = await filled_batch(store, 3)
        now += ABANDONED_AFTER_S / 2
        await store.intake.add_jobs(batch_id, await new_jobs(store, 1))
        now += ABANDONED_AFTER_S / 2 + 1
        assert await store.filling.clear_never_opened() is None
        now += ABANDONED_AFTER_S / 2
        assert await store.filling.clear_never_opened() == batch_id
        assert [await count(store, each) for each in ("batch", "job")] == [0, 0]


async def test_a_server_minds_its_own_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0))
    single = await new_jobs(store, 1)
    if store._db.dialect == "postgresql":
        await store.intake.accept_jobs("default", single)
    else:
        with pytest.raises(StoreBusy):
            await store.intake.accept_jobs("default", single)
