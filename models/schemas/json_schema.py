"""Callers' JSON schemas: whether answers can be checked against one, and the check, within bounds.

Schemas, patterns and answers are untrusted. They are processed in a child process (`models.schemas.judge`), whose time
and memory the kernel limits, and which is replaced when it dies. All functions block until the child has replied: an
event loop goes through `SchemaTurns`.

    Uncheckable    the schema cannot be used; one sentence that repeats nothing of the schema but keywords
    TooCostly      the check ran out of time
    NoJudge        no child process can be started now (`models.schemas.process`)
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

import orjson

from understudy.models.request.needs import schema_of
from understudy.models.schemas.process import Died, NoJudge, OutOfTime, the_judge

T = TypeVar("T")

MOST_BYTES = 100_000
"""Maximum size of a schema, as compact JSON."""

CHECK_S = 0.5
"""Processor time to check an answer; a typical check takes a millisecond."""

KEPT = 100
"""Maximum schemas whose findings are cached."""


AT_ONCE = 4
"""Tenants served concurrently. The work mostly waits for the process that checks schemas."""


class Uncheckable(Exception):
    """No answer can be checked against this schema."""


class TooCostly(Exception):
    """The check ran out of time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where an answer violates its schema, and the keyword. Contains no value of the answer, and only those of its
    names that also occur in the schema."""

    path: str
    keyword: str

    def __str__(self) -> str:
        return f"{self.path} ({self.keyword})"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a schema: `invalid` by the JSON Schema specification, or `unfit` for checking."""

    kind: Literal["invalid", "unfit"]
    reason: str


TOO_LONG = Finding("unfit", "preparing it takes too long; look for large counts in patterns")
TOO_LARGE = Finding("unfit", "checking against it takes too much memory, or refers to itself too deeply")


@dataclass(frozen=True, slots=True)
class Checker:
    """A schema that answers can be checked against."""

    schema: bytes

    def fault(self, value: Any, seconds: float) -> Fault | None:
        """The first fault of a JSON value, or None. Raises Uncheckable, TooCostly, NoJudge.

        Uses at most `seconds` of processor time.
        """
        try:
            reply = the_judge().ask(self.schema, orjson.dumps(value), seconds)
        except OutOfTime:
            raise TooCostly from None
        except Died:
            raise Uncheckable(TOO_LARGE.reason) from None
        except TypeError:
            raise Uncheckable("the answer is nested too deeply") from None
        if "costly" in reply:
            raise TooCostly
        if (finding := _finding(reply)) is not None:
            raise Uncheckable(finding.reason)
        return None if reply["fault"] is None else Fault(*reply["fault"])


def checker_for(schema: Mapping[str, Any]) -> Checker:
    """The checker for a schema. Raises Uncheckable, NoJudge."""
    text = _as_bytes(schema)
    finding = _look_at(text)
    if finding is not None:
        raise Uncheckable(finding.reason)
    return Checker(text)


def is_schema(schema: Mapping[str, Any]) -> bool:
    """Whether it conforms to the JSON Schema specification. Assumed for one that is too large to inspect.

    Raises NoJudge.
    """
    try:
        finding = _look_at(_as_bytes(schema))
    except Uncheckable:
        return True
    return finding is None or finding.kind == "unfit"


@lru_cache(maxsize=KEPT)
def _look_at(schema: bytes) -> Finding | None:
    try:
        return _finding(the_judge().ask(schema, None, 0.0))
    except OutOfTime:
        return TOO_LONG
    except Died:
        return TOO_LARGE


def _finding(reply: Mapping[str, Any]) -> Finding | None:
    if "invalid" in reply:
        return Finding("invalid", reply["invalid"])
    return Finding("unfit", reply["unfit"]) if "unfit" in reply else None


def _as_bytes(schema: Mapping[str, Any]) -> bytes:
    try:
        text = orjson.dumps(schema)
    except TypeError:
        raise Uncheckable("it is nested too deeply") from None
    if len(text) > MOST_BYTES:
        raise Uncheckable(f"it is {len(text):,} bytes long; the limit is {MOST_BYTES:,}")
    return text


class SchemaTurns:
    """However costly a tenant's schemas are, others wait for at most one piece of its work, never for its queue."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="schemas")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, tenant: str, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work` in a thread and return or raise what it does. Raises NoJudge if no thread can be started."""
        turn = self._turns.setdefault(tenant, asyncio.Lock())
        async with turn:
            try:
                done = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
            except RuntimeError:
                raise NoJudge from None
            return await done

    async def for_request(self, tenant: str, body: Mapping[str, Any], work: Callable[..., T], *arguments: Any) -> T:
        """The same for work on a request or its answer, done at once if the body contains no schema."""
        if schema_of(body.get("response_format")) is None:
            return work(*arguments)
        return await self.run(tenant, work, *arguments)
