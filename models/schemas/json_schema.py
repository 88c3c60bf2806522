"""JSON schemas that callers send: whether answers can be checked against one, and the check, within bounds.

A schema, its patterns and an answer come from people whom nobody checked. What they make a checker do is done in a
child process (`models.schemas.judge`), whose time and memory the kernel bounds, and which is replaced when it dies of
them. All of this blocks until the child has answered: an event loop asks through `models.schemas.queue`.

    Uncheckable    the schema cannot be used; one sentence, without a word of the schema but keywords
    TooCostly      the check has used up its time
    NoJudge        no child process can be started now (`models.schemas.process`)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import orjson

from understudy.models.schemas.process import Died, OutOfTime, the_judge

MOST_BYTES = 100_000
"""Of a schema, as compact JSON."""

CHECK_S = 0.5
"""Processor time for the check of an answer; a usual one takes a millisecond."""

KEPT = 100
"""Schemas of which is remembered what was found."""


class Uncheckable(Exception):
    """No answer can be checked against this schema."""


class TooCostly(Exception):
    """The check has used up its time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where an answer breaks its schema, and the keyword that says so. No value of the answer, and of its names only
    those that the schema has, too."""

    path: str
    keyword: str

    def __str__(self) -> str:
        return f"{self.path} ({self.keyword})"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a schema: it is `invalid` by the rules of JSON schema, or `unfit` for a check."""

    kind: Literal["invalid", "unfit"]
    reason: str


TOO_LONG = Finding("unfit", "to prepare it takes too long; look for large counts in patterns")
TOO_LARGE = Finding("unfit", "a check against it takes too much memory, or refers to itself too deeply")


@dataclass(frozen=True, slots=True)
class Checker:
    """One schema that answers can be checked against."""

    schema: bytes

    def fault(self, value: Any, seconds: float) -> Fault | None:
        """The first fault of a JSON value, or None. Raises Uncheckable, TooCostly, NoJudge.

        `seconds` of processor time are spent at most.
        """
        try:
            reply = the_judge().ask(self.schema, orjson.dumps(value), seconds)
        except OutOfTime:
            raise TooCostly from None
        except Died:
            raise Uncheckable(TOO_LARGE.reason) from None
        except TypeError:
            raise Uncheckable("the answer is nested too deep") from None
        if "costly" in reply:
            raise TooCostly
        if (finding := _finding(reply)) is not None:
            raise Uncheckable(finding.reason)
        return None if reply["fault"] is None else Fault(*reply["fault"])


def checker_for(schema: Mapping[str, Any]) -> Checker:
    """For the checks against a schema. Raises Uncheckable, NoJudge."""
    text = _as_bytes(schema)
    finding = _look_at(text)
    if finding is not None:
        raise Uncheckable(finding.reason)
    return Checker(text)


def is_schema(schema: Mapping[str, Any]) -> bool:
    """Whether it keeps to the rules of JSON schema. One that is too large to be looked at is believed.

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
        raise Uncheckable("it is nested too deep") from None
    if len(text) > MOST_BYTES:
        raise Uncheckable(f"it is {len(text):,} bytes long; the limit is {MOST_BYTES:,}")
    return text
