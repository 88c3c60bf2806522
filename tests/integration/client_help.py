"""For the tests of the Python client."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledger_help import failed, new_worker

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.store import Store


def settings(tmp_path: Path, redis_url: str | None = None, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "redis_url": redis_url,
            "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", **more}},
            "chains": {"default": {"steps": ["lead/large"]}, "other": {"steps": ["lead/small"]}},
        }
    )


async def open_jobs(store: Store, batch_id: str) -> list[str]:
    return [job.id async for job in store.reruns.unfinished(batch_id)]


async def fail_all(store: Store, ids: Sequence[str], cls: FailureClass = FailureClass.SERVER) -> None:
    worker = await new_worker(store)
    await store.claims.settle(worker, [failed(job, cls) for job in await store.claims.start(worker, ids)])
