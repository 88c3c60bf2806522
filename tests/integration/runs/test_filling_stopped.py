"""Batches whose lines stop the process that reads them: they are refused, and others are filled."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.schemas.process import NoJudge, SchemaProcess
from understudy.models.state import BatchState
from understudy.models.store import Store
from understudy.producer.api.files.blobs import StorageDown
from understudy.producer.ingest import batch_filler as filling
from understudy.producer.ingest import batch_lines
from understudy.producer.ingest.batch_filler import MOST_TRIES, MOST_UNEXPLAINED_TRIES, Filler, Read

SETTINGS = Settings.model_validate({"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
LEASE_S = 0.2
"""So that a batch is soon begun again."""

DEADLINE_S = 60.0


def line(number: int, **words: Any) -> bytes:
    body = {"model": "lead/large", "messages": [{"role": "user", "content": "x"}], **words}
    document = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return orjson.dumps(document) + b"\n"


def asks_for(schema: dict[str, Any]) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    return {"accept": ["json_schema"], "response_format": wanted}


async def accepted(store: Store, file_id: str) -> str:
    batch_id = new_id("batch")
    expires_at = await store.now() + 3_600
    await store.intake.accept_batch(NewBatch(batch_id, expires_at=expires_at, input_file_id=file_id, options="{}"))
    return batch_id


def reads(**files: list[Any]) -> Read:
    """Files by id. An exception in a file is raised when it is read."""

    async def read(file_id: str) -> AsyncIterator[bytes]:
        for piece in files[file_id]:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    return read


def filler(store: Store, read: Read, name: str = "filler") -> Filler:
    return Filler(SETTINGS, store, read, name, lease_s=LEASE_S)


async def fills_one(fills: Filler) -> None:
    """As soon as the lease of the previous filler has ended."""
    async with asyncio.timeout(DEADLINE_S):
        while not await fills.step():
            await asyncio.sleep(LEASE_S / 4)


async def begun_by(store: Store, name: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await store.filling.claim(name, LEASE_S) is None:
            await asyncio.sleep(LEASE_S / 4)


async def fills_until(store: Store, fills: Filler, *batch_ids: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while "validating" in [await state_of(store, each) for each in batch_ids]:
            if not await fills.step():
                await asyncio.sleep(LEASE_S / 4)


async def state_of(store: Store, batch_id: str) -> str:
    view = await store.batches.view(batch_id)
    assert view is not None
    return str(view.state)


async def errors_of(store: Store, batch_id: str) -> list[str]:
    view = await store.batches.view(batch_id)
    assert view is not None
    return [error["code"] for error in view.errors or []]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), KeyError("x")])
async def test_lines_that_fail_inside_us_twice_fail_their_batch_and_others_are_filled(
    store: Store, error: Exception
) -> None:
    bad, good = await accepted(store, "bad"), await accepted(store, "good")
    fills = filler(store, reads(bad=[line(1), error], good=[line(1)]))
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(type(error)):
            await fills.step()
    await fills_until(store, fills, bad, good)
    assert (await state_of(store, bad), await errors_of(store, bad)) == ("failed", [filling.STOPPED_US.code])
    assert await state_of(store, good) == BatchState.IN_PROGRESS


async def test_a_batch_that_kills_those_who_fill_it_is_refused(store: Store) -> None:
    batch_id = await accepted(store, "bad")
    for number in range(MOST_UNEXPLAINED_TRIES):
        await begun_by(store, f"killed-{number}")
    await fills_one(filler(store, reads(bad=[line(1)])))
    assert await errors_of(store, batch_id) == [filling.STOPPED_US.code]


async def test_failures_outside_the_batch_do_not_count_as_tries(store: Store) -> None:
    """Its file is unreachable for a long time, and servers are stopped in the middle."""
    batch_id = await accepted(store, "late")
    away = filler(store, reads(late=[StorageDown("away")]))
    for _ in range(2 * MOST_UNEXPLAINED_TRIES):
        with pytest.raises(StorageDown):
            await fills_one(away)
        await begun_by(store, "stopped")
        await store.filling.release("stopped")
    await fills_one(filler(store, reads(late=[line(1)])))
    assert await state_of(store, batch_id) == BatchState.IN_PROGRESS


async def test_a_batch_that_gets_on_is_not_refused_for_those_who_died(store: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(filling, "SLICE", 1)
    batch_id = await accepted(store, "long")
    for number in range(2 * MOST_TRIES):
        pieces = [line(each) for each in range(number + 2)]
        with pytest.raises(MemoryError):
            await fills_one(filler(store, reads(long=[*pieces, MemoryError()])))
    await fills_one(filler(store, reads(long=[line(each) for each in range(20)])))
    assert await state_of(store, batch_id) == BatchState.IN_PROGRESS


async def test_the_schemas_of_one_batch_have_a_time_limit(store: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(batch_lines, "SCHEMAS_S", 0.05)
    costly = [line(number, **asks_for({"pattern": f"^.{{1,4000}}{number}$"})) for number in range(200)]
    same = [line(number, **asks_for({"pattern": "^.{1,1000}$"})) for number in range(200)]
    bad, good = await accepted(store, "bad"), await accepted(store, "good")
    fills = filler(store, reads(bad=[b"".join(costly)], good=[b"".join(same)]))
    await fills_until(store, fills, bad, good)
    assert await errors_of(store, bad) == ["schemas_too_costly"]
    assert await state_of(store, good) == BatchState.IN_PROGRESS


async def test_a_batch_with_a_schema_for_each_line_is_filled(store: Store) -> None:
    batch_id = await accepted(store, "many")
    lines = [line(number, **asks_for({"type": "object", "required": [f"f{number}"]})) for number in range(300)]
    assert await filler(store, reads(many=[b"".join(lines)])).step()
    assert await state_of(store, batch_id) == BatchState.IN_PROGRESS


async def test_a_batch_waits_while_no_process_can_be_started_to_check_its_schemas(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_judge(*_: object) -> None:
        raise NoJudge

    batch = await accepted(store, "schemas")
    fills = filler(store, reads(schemas=[line(1, **asks_for({"title": new_id("batch")}))]))
    with monkeypatch.context() as no_more:
        no_more.setattr(SchemaProcess, "ask", no_judge)
        for _ in range(MOST_TRIES + 1):
            with pytest.raises(NoJudge):
                await fills_one(fills)
    await fills_one(fills)
    assert await state_of(store, batch) == BatchState.IN_PROGRESS
