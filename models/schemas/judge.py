"""The process that evaluates callers' schemas; started by `models.schemas.process`.

Whatever a schema, a pattern or an answer makes the engine do happens here: unbounded time, memory or stack kills only
this process. The kernel enforces the limits, so they hold whatever the engine does. It has no network, no files and no
secrets.

It answers requests one by one until its input ends, with the processor time taken (`took_s`) and one of:

    {"fault": null}              the schema can be checked; the answer, if any, conforms to it
    {"fault": [path, keyword]}   where the answer violates it
    {"costly": true}             a pattern was aborted
    {"unfit": "…"}               answers cannot be checked against it, and why
    {"invalid": "…"}             it violates the JSON Schema specification, and where
"""

import os
import resource
import signal
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import jsonschema_rs
import orjson
from jsonschema_rs import FancyRegexOptions, ValidationError, ValidationErrorKind

from understudy.models.config.private_files import without_core_dumps
from understudy.models.schemas.process import FRAME, LENGTH

PREPARE_S = 1.0
"""Processor time to prepare a schema; a typical one takes a millisecond, a pattern such as ^.{0,1000}$ takes 20."""

MOST_MEMORY_BYTES = 1 << 30
"""Limit of address space. By comparison a pattern is small (10 MB at most), and so is an answer: 1 MB is 250,000
tokens."""

BACKTRACKS = 100_000
"""Maximum backtracking steps of a pattern with a lookaround or a backreference. Others match in linear time."""

KEPT = 100
"""Maximum prepared schemas to cache."""

NAMED_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies", "dependentRequired"}
)
"""Keywords whose keys are the caller's names, not JSON Schema keywords."""

SHORTENED = "*"
"""Replaces a name in a path that must not be repeated."""

MOST_PATH_PARTS = 12

GIVEN_UP = ValidationErrorKind.BacktrackLimitExceeded | ValidationErrorKind.RegexEngineFailure

Reply = Mapping[str, Any]


class Unfit(Exception):
    """The schema is unusable; its `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class Prepared:
    """A schema prepared for checking answers."""

    def __init__(self, text: bytes) -> None:
        """Raises Unfit."""
        schema = orjson.loads(text)
        self._names = frozenset(_names(schema))
        try:
            self._validator = _validator(schema)
        except ValidationError as error:
            raise Unfit(_why_unfit(error)) from None
        except ValueError:  # the engine's own limit
            raise Unfit({"unfit": "it is nested too deeply"}) from None

    def judge(self, answer: bytes) -> Reply:
        try:
            self._validator.validate(orjson.loads(answer))
        except ValidationError as error:
            if isinstance(error.kind, GIVEN_UP):
                return {"costly": True}
            return {"fault": [self._path(error), error.kind.name]}
        except ValueError:
            return {"unfit": "the answer is nested too deeply"}
        return {"fault": None}

    def _path(self, error: ValidationError) -> str:
        """Contains only those names of the answer that also occur in the schema."""
        parts: list[str | int] = list(error.instance_path)
        if isinstance(error.kind, ValidationErrorKind.Required):
            parts.append(error.kind.property)
        return _as_path([part if isinstance(part, int) or part in self._names else SHORTENED for part in parts])


def _validator(schema: Any) -> jsonschema_rs.Validator:
    """By the draft that the schema names, else the latest. Raises ValidationError, ValueError."""
    options: dict[str, Any] = {
        "pattern_options": FancyRegexOptions(backtrack_limit=BACKTRACKS),
        "validate_formats": False,
        "offline": True,
    }
    try:
        return jsonschema_rs.validator_for(schema, **options)
    except ValidationError as error:
        if not (isinstance(error.kind, ValidationErrorKind.Referencing) and "meta-schema" in error.message):
            raise
    return jsonschema_rs.Draft202012Validator(schema, **options)


def _why_unfit(error: ValidationError) -> Reply:
    """Repeats nothing of the schema but keywords."""
    match error.kind:
        case ValidationErrorKind.Format():
            return {"unfit": "a 'pattern' is not a regular expression of ECMA-262, or is too large"}
        case ValidationErrorKind.Referencing() if error.message.startswith("Resource"):
            return {"unfit": "a '$ref' refers to something outside the schema"}
        case ValidationErrorKind.Referencing():
            return {"unfit": "a '$ref' refers to nothing"}
    return {"invalid": f"it is not a valid JSON schema at {_as_path(list(_keywords(error.instance_path)))}"}


def _keywords(path: Sequence[str | int]) -> Iterator[str | int]:
    """A path in a schema without the caller's names."""
    is_name = False
    for part in path:
        yield SHORTENED if is_name else part
        is_name = not is_name and part in NAMED_SCHEMAS


def _as_path(parts: Sequence[str | int]) -> str:
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts[:MOST_PATH_PARTS])
    return f"${shown}{'…' if len(parts) > MOST_PATH_PARTS else ''}"


def _names(schema: Any) -> Iterator[str]:
    """All keys in a schema."""
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield from part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


class Judge:
    """Caches prepared schemas."""

    def __init__(self) -> None:
        self._prepared: OrderedDict[bytes, Prepared] = OrderedDict()

    def judge(self, schema: bytes, answer: bytes | None, seconds: float) -> Reply:
        try:
            prepared = self._prepared.pop(schema, None) or self._prepare(schema)
        except Unfit as unfit:
            return unfit.reply
        self._prepared[schema] = prepared
        if len(self._prepared) > KEPT:
            self._prepared.popitem(last=False)
        if answer is None:
            return {"fault": None}
        with at_most(seconds):
            return prepared.judge(answer)

    def _prepare(self, schema: bytes) -> Prepared:
        with at_most(PREPARE_S):
            return Prepared(schema)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """The kernel kills this process once it has used this much processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Runs until the input ends."""
    judge = Judge()
    while head := requests.read(FRAME.size):
        seconds, schema_length, answer_length = FRAME.unpack(head)
        schema = requests.read(schema_length)
        answer = requests.read(answer_length - 1) if answer_length else None
        began = time.process_time()
        reply = orjson.dumps({**judge.judge(schema, answer, seconds), "took_s": time.process_time() - began})
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()


def limit_this_process() -> None:
    """No more files, sockets or core dumps, and bounded memory."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    without_core_dumps()
    with suppress(ValueError, OSError):  # not available on every system
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process by closing its input
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # hard limit, even if the parent ignores the deadline
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    limit_this_process()
    serve(os.fdopen(0, "rb"), os.fdopen(1, "wb"))


if __name__ == "__main__":
    main()
