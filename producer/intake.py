"""Inputs become validated jobs, one line at a time: JSONL in three shapes, and CSV with a template.

    {"custom_id": …, "body": {…}}     OpenAI batch lines
    {"messages": […], …}              bare chat-completion bodies
    {"prompt": "…", …}                prompts; `system` and other parameters may stand beside
    name,colour / Ada,red             CSV; `--prompt 'Write a blurb for {name}'`

Memory stays flat: a line is read, checked and handed on. A bad line is a value (`BadLine`), not an exception,
because all of them are reported at once.
"""

import csv
import hashlib
import io
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from models.chain import Chain
from models.ids import new_id
from models.records import NewJob
from models.routing import RouteOptions, Router, estimate_tokens
from models.settings import Settings
from models.state import Priority
from models.wire import RequestError, check_body, parse_line

LINE_MAX_BYTES = 16 * 1024 * 1024
CUSTOM_ID_MAX = 512
BATCH_URL = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot become a job: its number (from 1) and one sentence."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shape:
    """The options that shape requests; part of a run's identity."""

    prompt: str | None = None
    system: str | None = None
    id_column: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    route: RouteOptions = field(default_factory=RouteOptions)
    limit: int | None = None

    def digest(self) -> str:
        document = {
            "prompt": self.prompt,
            "system": self.system,
            "id_column": self.id_column,
            "params": self.params,
            "route": repr(self.route),
            "limit": self.limit,
        }
        return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


class InputError(Exception):
    """The input as a whole cannot be used. One sentence."""


def identity_of(path: Path, shape: Shape) -> str:
    """Names a run: the same bytes with the same shaping options are the same run."""
    digest = hashlib.sha256(shape.digest().encode())
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_jobs(
    path: Path, shape: Shape, settings: Settings, *, priority: Priority, expires_at: float, tenant: str = "default"
) -> Iterator[NewJob | BadLine]:
    """Every line of the input as a job or as what is wrong with it."""
    reader = _Reader(shape, settings, priority, expires_at, tenant)
    with path.open("rb") as stream:
        rows = _csv_rows(stream, shape) if path.suffix.lower() == ".csv" else _json_rows(stream)
        for count, (line, row) in enumerate(rows, start=1):
            if shape.limit is not None and count > shape.limit:
                return
            yield reader.job(line, row)


@dataclass(slots=True)
class _Row:
    """One line, parsed: the request, the caller's id if it has one, and what the output repeats."""

    body: dict[str, Any]
    custom_id: str | None = None
    extra: str | None = None


class _Reader:
    def __init__(self, shape: Shape, settings: Settings, priority: Priority, expires_at: float, tenant: str) -> None:
        self._shape = shape
        self._router = Router(settings, shape.route)
        self._priority = priority
        self._expires_at = expires_at
        self._tenant = tenant
        self._first_seen: dict[int, int] = {}  # hash of a custom id -> its line

    def job(self, line: int, row: "_Row | str") -> NewJob | BadLine:
        if isinstance(row, str):
            return BadLine(line, row)
        try:
            chain, body = self._request(row)
        except RequestError as error:
            return BadLine(line, str(error))
        custom_id = row.custom_id if row.custom_id is not None else str(line)
        earlier = self._first_seen.setdefault(hash(custom_id), line)
        if earlier != line:
            return BadLine(line, f"custom_id {custom_id!r} was used already, on line {earlier}")
        return NewJob(
            id=new_id("job"),
            body=orjson.dumps(body).decode(),
            chain=chain,
            custom_id=custom_id,
            line=line,
            tokens=estimate_tokens(body),
            priority=self._priority,
            tenant=self._tenant,
            expires_at=self._expires_at,
            extra=row.extra,
        )

    def _request(self, row: _Row) -> tuple[Chain, dict[str, Any]]:
        body = row.body
        if "messages" not in body and "prompt" in body:
            body = _from_prompt(body)
        if self._shape.system is not None:
            body = {**body, "messages": [{"role": "system", "content": self._shape.system}, *body.get("messages", [])]}
        body = {**body, **self._shape.params}
        check_body(body)
        return self._router.resolve(body)


def _from_prompt(body: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": body["prompt"]}]
    if body.get("system") is not None:
        messages.insert(0, {"role": "system", "content": body["system"]})
    return {**{key: value for key, value in body.items() if key not in ("prompt", "system")}, "messages": messages}


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | str]]:
    """Lines without their ends, numbered from 1; a too long one is skipped over and comes as a reason."""
    number = 0
    while raw := stream.readline(LINE_MAX_BYTES + 1):
        number += 1
        if len(raw) > LINE_MAX_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LINE_MAX_BYTES)
            yield number, f"longer than {LINE_MAX_BYTES // 1024 // 1024} MiB"
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        raw = raw.strip()
        if raw:
            yield number, raw


def _json_rows(stream: BinaryIO) -> Iterator[tuple[int, _Row | str]]:
    for number, raw in _lines(stream):
        if isinstance(raw, str):
            yield number, raw
            continue
        try:
            yield number, _row_of(parse_line(raw))
        except RequestError as error:
            yield number, str(error)


def _row_of(document: dict[str, Any]) -> _Row:
    custom_id = document.get("custom_id", document.get("id"))
    if custom_id is not None:
        custom_id = str(custom_id)
        if not custom_id or len(custom_id) > CUSTOM_ID_MAX:
            raise RequestError(f"custom_id must have 1 to {CUSTOM_ID_MAX} characters", "custom_id")
    if "body" not in document:
        own = ("custom_id", "id")
        return _Row({key: value for key, value in document.items() if key not in own}, custom_id)
    if not isinstance(document["body"], dict):
        raise RequestError("body must be an object", "body")
    if document.get("url", BATCH_URL) != BATCH_URL or document.get("method", "POST") != "POST":
        raise RequestError(f"only POST {BATCH_URL} is served", "url")
    return _Row(document["body"], custom_id)


def _csv_rows(stream: BinaryIO, shape: Shape) -> Iterator[tuple[int, _Row | str]]:
    if shape.prompt is None:
        raise InputError("a CSV input needs --prompt with the columns in braces, e.g. --prompt 'Describe {name}'")
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        columns = list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"line 1: the CSV header cannot be read: {_csv_reason(error)}") from None
    _check_columns(shape, columns)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except (UnicodeDecodeError, csv.Error) as error:
            yield line, _csv_reason(error)
            return
        if row is None:
            return
        if None in row or None in row.values():
            yield line, f"has not the {len(columns)} columns of the header"
            continue
        yield line, _row_of_csv(row, shape)


def _row_of_csv(row: dict[str, str], shape: Shape) -> _Row:
    body = {"prompt": (shape.prompt or "").format_map(row)}
    custom_id = row[shape.id_column] if shape.id_column else None
    return _Row(body, custom_id, orjson.dumps(row).decode())


def _check_columns(shape: Shape, columns: list[str]) -> None:
    if len(set(columns)) != len(columns):
        raise InputError("line 1: the CSV header names a column twice")
    try:
        named = [name for _, name, _, _ in string.Formatter().parse(shape.prompt or "") if name is not None]
    except ValueError as error:
        raise InputError(f"--prompt is no valid template ({error}); write a literal brace as {{{{ or }}}}") from None
    for name in [*named, *([shape.id_column] if shape.id_column else [])]:
        if name not in columns:
            raise InputError(f"the CSV has no column {name!r}; it has {', '.join(columns)}")


def _csv_reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text; convert the file first, e.g. with iconv"
    return f"no valid CSV: {error}"
