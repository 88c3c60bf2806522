"""JSON schemas that callers send: which of them answers can be checked against, and the check, within bounds.

A schema and an answer come from people whom nobody checked, and the check shares its process with the jobs of
others. So no schema refers to anything outside itself, what has no bound is refused, and a check that has used up its
time ends.

    Uncheckable    the schema cannot be used; one sentence, without a word of the schema but keywords
    TooCostly      the check has used up its time
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

MOST_BYTES = 100_000
"""Of a schema, as compact JSON."""

KEPT = 100
"""Schemas that a process keeps prepared."""

REFUSED_WORDS = frozenset(
    {"patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"}
)
"""Keywords whose check has no bound of time."""

NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
"""Their keys are the caller's names, not words of JSON schema."""

PLAIN_VALUES = frozenset({"enum", "const", "default", "examples", "required", "dependentRequired"})
"""What stands behind them is no schema."""

ROOT = "urn:schema"
TEXT_SHORTENED = "*"
"""In a path, in place of a name that only the answer has."""

MOST_PATH_PARTS = 12


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


_deadline: ContextVar[float] = ContextVar("deadline")
"""Until when the check of this context may go on, in seconds of its thread's own computing time."""


def _left_s() -> float:
    """Raises TooCostly when there is none."""
    left = _deadline.get() - time.thread_time()
    if left <= 0:
        raise TooCostly
    return left


Keyword = Callable[[Any, Any, Any, Mapping[str, Any]], Iterator[ValidationError] | None]


def _counted(keyword: Keyword) -> Keyword:
    def check(validator: Any, wanted: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError] | None:
        _left_s()
        return keyword(validator, wanted, value, schema)

    return check


def _pattern(_validator: Any, wanted: Any, value: Any, _schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """As the library's own, but it ends: a hostile pattern would take longer than the universe is old."""
    if isinstance(value, str):
        try:
            found = regex.search(wanted, value, timeout=_left_s())
        except TimeoutError:
            raise TooCostly from None
        if found is None:
            yield ValidationError("does not match")


def _unique_items(_validator: Any, wanted: Any, value: Any, _schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """As the library's own, which compares each with each. 1 and 1.0 are different here."""
    if wanted and isinstance(value, list):
        _left_s()
        if len({orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in value}) < len(value):
            yield ValidationError("has repeated items")


_OWN: Mapping[str, Keyword] = {"pattern": _pattern, "uniqueItems": _unique_items}
_keywords = {name: _counted(_OWN.get(name, keyword)) for name, keyword in Draft202012Validator.VALIDATORS.items()}
_Validator: Any = extend(Draft202012Validator, {**_keywords, "format": None})  # type: ignore[no-untyped-call]


class Checker:
    """One schema, prepared."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._names = frozenset(_names(schema))
        self._validator = _Validator(schema, registry=Registry())

    def fault(self, value: Any, seconds: float) -> Fault | None:
        """The first fault of a JSON value, or None. Raises Uncheckable, TooCostly.

        `seconds` of computing are spent at most, and the few milliseconds that one keyword may take beyond them.
        """
        token = _deadline.set(time.thread_time() + seconds)
        try:
            error = next(self._validator.iter_errors(value), None)
        except TooCostly:
            raise
        except Exception:  # schemas that are none fail inside the library in every way there is
            raise Uncheckable("the schema cannot be followed") from None
        finally:
            _deadline.reset(token)
        return None if error is None else Fault(self._path(error), str(error.validator))

    def _path(self, error: ValidationError) -> str:
        parts = list(error.absolute_path)
        shown = "".join(map(self._part, parts[:MOST_PATH_PARTS]))
        return f"${shown}{'…' if len(parts) > MOST_PATH_PARTS else ''}{self._lack(error)}"

    def _lack(self, error: ValidationError) -> str:
        """The name that `required` misses."""
        wanted, value = error.validator_value, error.instance
        if error.validator != "required" or not isinstance(wanted, list) or not isinstance(value, dict):
            return ""
        return next((f".{name}" for name in wanted if name not in value), "")

    def _part(self, part: str | int) -> str:
        if isinstance(part, int):
            return f"[{part}]"
        return f".{part if part in self._names else TEXT_SHORTENED}"


def checker_for(schema: Mapping[str, Any]) -> Checker:
    """The prepared schema, from memory if it was met lately. Raises Uncheckable."""
    return _checker(_as_bytes(schema))


@lru_cache(maxsize=KEPT)
def _checker(text: bytes) -> Checker:
    schema = orjson.loads(text)
    _refuse_what_has_no_bound(schema)
    return Checker(schema)


@lru_cache(maxsize=KEPT)
def _is_schema(text: bytes) -> bool:
    try:
        Draft202012Validator.check_schema(orjson.loads(text))
    except (SchemaError, RecursionError):
        return False
    return True


def is_schema(schema: Mapping[str, Any]) -> bool:
    """Whether it keeps to the rules of JSON schema. One that is too large to be looked at is believed."""
    try:
        return _is_schema(_as_bytes(schema))
    except Uncheckable:
        return True


def _as_bytes(schema: Mapping[str, Any]) -> bytes:
    try:
        text = orjson.dumps(schema)
    except TypeError:
        raise Uncheckable("it is nested too deep") from None
    if len(text) > MOST_BYTES:
        raise Uncheckable(f"it is {len(text):,} bytes long; the limit is {MOST_BYTES:,}")
    return text


def _refuse_what_has_no_bound(schema: dict[str, Any]) -> None:
    resolver = Registry().with_resource(ROOT, DRAFT202012.create_resource(schema)).resolver(ROOT)
    for part in _schemas(schema):
        for word in sorted(REFUSED_WORDS & part.keys()):
            raise Uncheckable(f"'{word}' is not checked")
        reference = part.get("$ref", "#")
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Uncheckable("a '$ref' refers to something outside the schema")
        try:
            resolver.lookup(reference)
        except (Unresolvable, TypeError, ValueError):
            raise Uncheckable("a '$ref' refers to nothing") from None
        try:
            regex.compile(part.get("pattern", ""))
        except (regex.error, TypeError):
            raise Uncheckable("a 'pattern' is no regular expression") from None


def _schemas(value: Any, *, names: bool = False) -> Iterator[dict[str, Any]]:
    """The schema and all schemas in it; `names`: the keys of `value` are the caller's names."""
    if isinstance(value, list):
        for entry in value:
            yield from _schemas(entry)
    elif isinstance(value, dict):
        if not names:
            yield value
        for word, entry in value.items():
            if names or word not in PLAIN_VALUES:
                yield from _schemas(entry, names=not names and word in NAMED_SCHEMAS)


def _names(schema: dict[str, Any]) -> Iterator[str]:
    """All names of properties that the schema knows."""
    for part in _schemas(schema):
        for word in NAMED_SCHEMAS:
            if isinstance(part.get(word), dict):
                yield from part[word]
