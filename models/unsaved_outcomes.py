"""Outcomes that could not be written to the ledger before their worker had to exit: in the data folder, until its next
start.

Each file begins with a line that names the worker and the ledger; each further line is an outcome. Writing them twice
is harmless: the ledger identifies each claim and each call.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson

from understudy.models.config.private_files import make_private, make_private_within
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.execution import AttemptRecord, ResultRecord, Settled
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.state import JobState
from understudy.models.store import Store, StoreError, StoreOutage

log = logging.getLogger(__name__)

FOLDER = "spool"
TOGETHER = 200


def keep(data: Path, place: str, worker_id: str, outcomes: Iterable[Settled]) -> None:
    """Write outcomes of a worker to disk, for the ledger at `place`. Returns when they are durable.

    Raises OSError.
    """
    folder = data / FOLDER
    make_private(data)
    make_private_within(folder)
    file = folder / f"{new_id('spool')}.jsonl"
    part = file.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(orjson.dumps({"worker": worker_id, "ledger": place}) + b"\n")
        for each in outcomes:
            stream.write(_line(each))
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(file)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def replay(data: Path, store: Store) -> int:
    """Write to the ledger what was kept for it; call this before jobs of dead workers are taken back.

    Returns for how many jobs it was in time: the others run again, and only their calls are recorded. Files for another
    ledger stay. Raises StoreOutage, OSError.
    """
    in_time = 0
    for file in sorted((data / FOLDER).glob("*.jsonl")):
        try:
            worker_id, place, outcomes = _read(file)
        except FileNotFoundError:  # another process is starting in this folder, too, and was faster
            continue
        except (ValueError, KeyError, TypeError):
            log.error("%s was modified and cannot be parsed; it is left unchanged", file)
            continue
        if place != store.place:
            log.warning("%s holds answers for the ledger at %s and is left unchanged", file, place)
            continue
        for start in range(0, len(outcomes), TOGETHER):
            in_time += await _settle(store, worker_id, outcomes[start : start + TOGETHER])
        file.unlink(missing_ok=True)
    return in_time


def _read(file: Path) -> tuple[str, str, list[Settled]]:
    first, *lines = file.read_bytes().splitlines()
    about = orjson.loads(first)
    return about["worker"], about["ledger"], [_outcome(line) for line in lines]


async def _settle(store: Store, worker_id: str, outcomes: Sequence[Settled]) -> int:
    try:
        return len(await store.claims.settle(worker_id, outcomes))
    except StoreOutage:
        raise
    except StoreError as refusal:
        if len(outcomes) > 1:
            return sum([await _settle(store, worker_id, [each]) for each in outcomes])
        log.error(
            "The ledger cannot store the outcome of job %s, which will run again: %s", outcomes[0].job_id, refusal
        )
        return 0


def _line(settled: Settled) -> bytes:
    try:
        return orjson.dumps(settled) + b"\n"
    except orjson.JSONEncodeError:  # the ledger could not have stored it either
        log.error("The outcome of job %s cannot be saved; the job will run again", settled.job_id)
        return b""


def _outcome(line: bytes) -> Settled:
    words = _known(Settled, orjson.loads(line))
    attempts = [_known(AttemptRecord, each) for each in words.pop("attempts")]
    result = words.pop("result")
    waiting = words.pop("waiting", None)
    return Settled(
        **words | {"state": JobState(words["state"])},
        attempts=[AttemptRecord(**each | {"cls": each["cls"] and FailureClass(each["cls"])}) for each in attempts],
        result=None if result is None else _result(result),
        waiting=None if waiting is None else Waiting(**_known(Waiting, waiting)),
    )


def _result(words: dict[str, Any]) -> ResultRecord:
    known = _known(ResultRecord, words)
    failure = known.pop("failure", None)
    return ResultRecord(**known, failure=failure and FailureClass(failure))


def _known(record: type, words: dict[str, Any]) -> dict[str, Any]:
    """Without fields that another version added."""
    names = {each.name for each in fields(record)}
    return {name: value for name, value in words.items() if name in names}
