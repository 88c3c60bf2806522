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
from functools import lru_cache
from typing import Any, TypeVar
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


TOO_LONG = "preparing it takes too long; look for large counts in patterns"
TOO_LARGE = "checking against it takes too much memory, or refers to itself too deeply"


class Uncheckable(Exception):
    """No answer can be checked against this schema. `invalid`: it violates the JSON Schema specification."""

    def __init__(self, reason: str, *, invalid: bool = False) -> None:
        super().__init__(reason)
        self.invalid = invalid


class TooCostly(Exception):
    """The check ran out of time."""


def fault_in(value: Any, schema: Mapping[str, Any], seconds: float) -> str | None:
    """Where a JSON value first violates the schema, with the keyword, such as `$.price (type)`; None: it conforms.

    Contains no value of the answer, and only those of its names that also occur in the schema. Uses at most `seconds`
    of processor time. Raises Uncheckable, TooCostly, NoJudge.
    """
    text = check_schema(schema)
    try:
        reply = the_judge().ask(text, orjson.dumps(value), seconds)
    except OutOfTime:
        raise TooCostly from None
    except Died:
        raise Uncheckable(TOO_LARGE) from None
    except TypeError:
        raise Uncheckable("the answer is nested too deeply") from None
    if "costly" in reply:
        raise TooCostly
    _refuse_unfit(reply)
    return None if reply["fault"] is None else "{} ({})".format(*reply["fault"])


def check_schema(schema: Mapping[str, Any]) -> bytes:
    """A schema that answers can be checked against, as JSON. Raises Uncheckable, NoJudge."""
    try:
        text = orjson.dumps(schema)
    except TypeError:
        raise Uncheckable("it is nested too deeply") from None
    if len(text) > MOST_BYTES:
        raise Uncheckable(f"it is {len(text):,} bytes long; the limit is {MOST_BYTES:,}")
    _refuse_unfit(_reply_about(text))
    return text


def is_schema(schema: Mapping[str, Any]) -> bool:
    """Whether it conforms to the JSON Schema specification. Assumed for one that is too large to inspect.

    Raises NoJudge.
    """
    try:
        check_schema(schema)
    except Uncheckable as why:
        return not why.invalid
    return True


@lru_cache(maxsize=KEPT)
def _reply_about(schema: bytes) -> Mapping[str, Any]:
    try:
        return the_judge().ask(schema, None, 0.0)
    except OutOfTime:
        return {"unfit": TOO_LONG}
    except Died:
        return {"unfit": TOO_LARGE}


def _refuse_unfit(reply: Mapping[str, Any]) -> None:
    for kind in ("invalid", "unfit"):
        if kind in reply:
            raise Uncheckable(reply[kind], invalid=kind == "invalid")


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
