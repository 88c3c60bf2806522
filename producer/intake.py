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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from models.chain import CHAT, Chain, Endpoint
from models.endpoints import ENDPOINTS
from models.ids import new_id
from models.needs import is_plain, needs_of
from models.records import NewJob
from models.route_words import refuse_misplaced, refuse_misspelt
from models.routing import RouteOptions, Router
from models.rules import NO_RULES, Rules
from models.settings import Settings
from models.state import Priority
from models.tokens import most_output_tokens
from models.wire import RequestError, parse_line
from producer.first_lines import FirstLines

LINE_MAX_BYTES = 16 * 1024 * 1024
CUSTOM_ID_MAX = 512
NOT_UTF8 = "not UTF-8 text; convert the file first, e.g. with iconv"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot become a job: its number (from 1) and one sentence; a word for programs, and the field."""

    line: int
    reason: str
    code: str = "invalid_request"
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The options that shape requests; part of a run's identity."""

    prompt: str | None = None
    system: str | None = None
    id_column: str | None = None
    route: RouteOptions = field(default_factory=RouteOptions)
    limit: int | None = None

    def digest(self) -> str:
        """Raises RequestError when an option is no text."""
        document = {
            "prompt": self.prompt,
            "system": self.system,
            "id_column": self.id_column,
            "route": repr(self.route),
            "limit": self.limit,
        }
        return hashlib.sha256(_as_json(document).encode()).hexdigest()


class InputError(Exception):
    """The input as a whole cannot be used. One sentence."""


@dataclass(frozen=True, slots=True)
class Template:
    """`--prompt` of a CSV input, taken apart: text and the column that follows it, if one does."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Raises InputError. Whatever stands between two braces is a column's name, colons and dots included."""
        try:
            return cls(tuple((before, _column(*rest)) for before, *rest in string.Formatter().parse(text)))
        except ValueError as error:
            raise InputError(
                f"--prompt is no valid template ({error}); write a literal brace as {{{{ or }}}}"
            ) from None

    @property
    def columns(self) -> list[str]:
        return [column for _, column in self.pieces if column is not None]

    def fill(self, row: Mapping[str, str]) -> str:
        return "".join(before + (row[column] if column is not None else "") for before, column in self.pieces)


def _column(name: str | None, spec: str | None, conversion: str | None) -> str | None:
    if name is None:
        return None
    return name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")


def identity_of(path: Path, shape: Shape) -> str:
    """Names a run: the same bytes with the same shaping options are the same run."""
    digest = hashlib.sha256(shape.digest().encode())
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_jobs(
    path: Path,
    shape: Shape,
    settings: Settings,
    *,
    priority: Priority,
    expires_at: float,
    tenant: str = "default",
    rules: Rules = NO_RULES,
) -> Iterator[NewJob | BadLine]:
    """Every line of the input as a job or as what is wrong with it. `rules` are the tenant's. Raises InputError."""
    reader = JobReader(shape, settings, priority, expires_at, tenant, endpoint=None, rules=rules)
    is_csv = path.suffix.lower() == ".csv"
    with path.open(encoding="utf-8-sig", newline="") if is_csv else path.open("rb") as stream:
        rows = _csv_rows(stream, shape) if isinstance(stream, io.TextIOBase) else _json_rows(stream, shape)
        for line, row in islice(rows, shape.limit):
            yield reader.job(line, row)


@dataclass(slots=True)
class Row:
    """One line, parsed: the request, the caller's id if it has one, and what the output repeats."""

    body: dict[str, Any]
    custom_id: str | None = None
    extra: str | None = None
    endpoint: Endpoint | None = None  # None: the line does not say


class JobReader:
    """Makes jobs of the rows of one input, and finds the ids that it uses twice."""

    def __init__(
        self,
        shape: Shape,
        settings: Settings,
        priority: Priority,
        expires_at: float,
        tenant: str,
        expected_lines: int = 0,
        *,
        endpoint: Endpoint | None = CHAT,
        rules: Rules = NO_RULES,
    ) -> None:
        """`endpoint` None: the one of the first row; a chat completion if that says nothing. `rules`: the tenant's."""
        self._rules = rules
        self._shape = shape
        self._settings = settings
        self._endpoint = endpoint
        self._router: Router | None = None
        self._priority = priority
        self._expires_at = expires_at
        self._tenant = tenant
        self._custom_ids = FirstLines(expected_lines)

    def job(self, line: int, row: Row | str) -> NewJob | BadLine:
        """`row` as text is the reason why there is none. Line 0: the job is alone, and named by its id."""
        if isinstance(row, str):
            return BadLine(line, row)
        job_id = new_id("job")
        custom_id = row.custom_id if row.custom_id is not None else str(line) if line else job_id
        try:
            chain, body = self._request(row, custom_id)
            document = _as_json(body)
        except RequestError as error:
            return BadLine(line, str(error), error.code, error.param)
        earlier = self._custom_ids.first(custom_id, line)
        if earlier != line:
            reason = f"custom_id {custom_id!r} was used already, on line {earlier}"
            return BadLine(line, reason, "duplicate_custom_id", "custom_id")
        tokens, most = ENDPOINTS[chain.endpoint].estimate_tokens(body), most_output_tokens(body)
        plain = chain.endpoint == CHAT and is_plain(body)
        return NewJob(
            id=job_id,
            body=document,
            chain=chain,
            custom_id=custom_id,
            line=line,
            tokens=tokens,
            max_output_tokens=most,
            needs=None if plain else needs_of(body, chain.endpoint, tokens, most),
            priority=self._priority,
            tenant=self._tenant,
            expires_at=self._expires_at,
            extra=row.extra,
        )

    def _request(self, row: Row, custom_id: str) -> tuple[Chain, dict[str, Any]]:
        endpoint = self._endpoint_of(row)
        refuse_misspelt(row.body)
        body = self._as_chat(row.body) if endpoint == CHAT else row.body
        ENDPOINTS[endpoint].check(body)
        if self._shape.system is not None:
            if endpoint != CHAT:
                raise RequestError(f"a system prompt has no meaning for {endpoint}; leave out --system", "system")
            body = {**body, "messages": [{"role": "system", "content": self._shape.system}, *body["messages"]]}
        if self._router is None:
            self._router = Router(self._settings, self._shape.route, endpoint=endpoint, rules=self._rules)
        return self._router.resolve(body, custom_id)

    def _endpoint_of(self, row: Row) -> Endpoint:
        """All rows of one input have the same."""
        if self._endpoint is None:
            self._endpoint = row.endpoint or CHAT
        if row.endpoint not in (None, self._endpoint):
            raise RequestError(f"'url' must be {self._endpoint}, as on the lines before", "url", "invalid_url")
        return self._endpoint

    def _as_chat(self, body: dict[str, Any]) -> dict[str, Any]:
        if "messages" not in body and "prompt" in body:
            return _from_prompt(body)
        if "messages" not in body:
            raise RequestError("has neither 'prompt' nor 'messages'", "messages")
        return body


def _as_json(document: dict[str, Any]) -> str:
    try:
        return orjson.dumps(document).decode()
    except TypeError as error:  # nested too deep, or text that is no Unicode; orjson does not quote what it refuses
        raise RequestError(f"cannot be written as JSON: {error}", code="invalid_json") from None


def _from_prompt(body: dict[str, Any]) -> dict[str, Any]:
    prompt, system = body["prompt"], body.get("system")
    if not isinstance(prompt, str) or not isinstance(system, str | None):
        raise RequestError("'prompt' and 'system' must be strings", "prompt")
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
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


def _json_rows(stream: BinaryIO, shape: Shape) -> Iterator[tuple[int, Row | str]]:
    for option, value in (("--prompt", shape.prompt), ("--id-column", shape.id_column)):
        if value is not None:
            raise InputError(f"{option} is for CSV inputs, whose names end in .csv; this one is read as JSON lines")
    for number, raw in _lines(stream):
        if isinstance(raw, str):
            yield number, raw
            continue
        try:
            yield number, row_of(parse_line(raw))
        except RequestError as error:
            yield number, str(error) if _is_utf8(raw) else NOT_UTF8


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def checked_id(value: object) -> str | None:
    """A caller's name for a request: text, or a whole number as text. Raises RequestError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RequestError("custom_id must be a string", "custom_id")
    text = str(value)
    if not 1 <= len(text) <= CUSTOM_ID_MAX or "\0" in text:
        raise RequestError(f"custom_id must have 1 to {CUSTOM_ID_MAX} characters, none of them NUL", "custom_id")
    return text


def row_of(document: dict[str, Any]) -> Row:
    """A request in any of the shapes of a JSON line. Raises RequestError."""
    custom_id = checked_id(document.get("custom_id", document.get("id")))
    if "body" not in document:
        own = ("custom_id", "id")
        return Row({key: value for key, value in document.items() if key not in own}, custom_id)
    if not isinstance(document["body"], dict):
        raise RequestError("body must be an object", "body")
    refuse_misplaced(document)
    return Row(document["body"], custom_id, endpoint=_endpoint(document))


def _endpoint(document: dict[str, Any]) -> Endpoint | None:
    url = document.get("url")
    served = next((known for known in ENDPOINTS if known == url), None)
    if (url is not None and served is None) or document.get("method", "POST") != "POST":
        raise RequestError(f"only POST {' and '.join(ENDPOINTS)} are served", "url")
    return served


def _csv_rows(text: io.TextIOBase, shape: Shape) -> Iterator[tuple[int, Row | str]]:
    if shape.prompt is None:
        raise InputError("a CSV input needs --prompt with the columns in braces, e.g. --prompt 'Describe {name}'")
    template = Template.parse(shape.prompt)
    csv.field_size_limit(LINE_MAX_BYTES)  # the default of 128 KiB is less than a document to be summarised
    reader = csv.DictReader(text, strict=True)
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            if columns is None:
                columns = list(reader.fieldnames or [])
                _check_columns(template, shape.id_column, columns)
                continue
            row = next(reader, None)
        except (UnicodeDecodeError, csv.Error) as error:
            # Where the next record begins is unknown now: going on would drop or mix lines without a word.
            raise InputError(f"line {line} and what follows cannot be read: {_csv_reason(error)}") from None
        if row is None:
            return
        yield line, _row_of_csv(row, template, shape.id_column, len(columns))


def _row_of_csv(row: dict[str, str], template: Template, id_column: str | None, columns: int) -> Row | str:
    if None in row or None in row.values():
        return f"has not the {columns} columns of the header"
    try:
        custom_id = checked_id(row[id_column]) if id_column else None
    except RequestError as error:
        return str(error)
    return Row({"prompt": template.fill(row)}, custom_id, orjson.dumps(row).decode())


def _check_columns(template: Template, id_column: str | None, columns: list[str]) -> None:
    if not columns:
        raise InputError("the CSV is empty; its first line must name the columns")
    if len(set(columns)) != len(columns):
        raise InputError("line 1: the CSV header names a column twice")
    for name in [*template.columns, *([id_column] if id_column else [])]:
        if name not in columns:
            raise InputError(f"the CSV has no column {name!r}; it has {', '.join(columns)}")


def _csv_reason(error: Exception) -> str:
    return NOT_UTF8 if isinstance(error, UnicodeDecodeError) else f"no valid CSV: {error}"
