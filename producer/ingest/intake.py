"""Turns inputs into validated jobs, line by line: JSON lines in three shapes, and CSV with a template.

    {"custom_id": …, "body": {…}}     OpenAI batch lines
    {"messages": […], …}              bare chat-completion bodies
    {"prompt": "…", …}                prompts, optionally with `system` and other parameters
    name,colour / Ada,red             CSV; `--prompt 'Write a blurb for {name}'`

Memory stays flat: each line is read, checked and passed on. A bad line is a value (`BadLine`), not an exception,
because all of them are reported together.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.records import NewJob
from understudy.models.request.endpoints import ENDPOINTS, endpoint_named
from understudy.models.request.needs import OUTPUT_WORDS, is_plain, needs_of
from understudy.models.request.tokens import most_output_tokens
from understudy.models.request.wire import BYTE_ORDER_MARK, RequestError, is_utf8, parse_line, write_json
from understudy.models.routing.chain import CHAT, Chain, Endpoint
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.options import RouteOptions, refuse_misplaced, refuse_misspelt
from understudy.models.routing.route import Router
from understudy.models.state import Priority
from understudy.producer.ingest.csv_input import SHEETS, Rows, Sheet, Template, sheet_of
from understudy.producer.ingest.decoding import (
    LINE_MAX_BYTES,
    NOT_UTF8,
    UTF8_MARKED,
    Encoding,
    InputError,
    inner_suffix,
    marked_encoding,
    open_input,
    open_text,
)
from understudy.producer.ingest.duplicate_ids import FirstLines
from understudy.producer.ingest.input_notes import InputNotes
from understudy.producer.runs.output import CSV, SEPARATORS, CsvForm

CUSTOM_ID_MAX = 512
NAMES_SHOWN = 5
NAME_SHOWN_CHARS = 40
TEXTS = frozenset({".txt", ".text", ".md", ".dat"})
TEXT_REMEDY = 'each line must be an object such as {"prompt": "…"}; for a table with a header line, use --prompt'
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot become a job: its number (from 1), the reason as one sentence, an error code, and the
    field."""

    line: int
    reason: str
    code: str = "invalid_request"
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The options that shape requests."""

    prompt: str | None = None
    system: str | None = None
    id_column: str | None = None
    route: RouteOptions = field(default_factory=RouteOptions)
    limit: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)  # defaults for requests that do not set them


def read_jobs(
    path: Path,
    shape: Shape,
    settings: Settings,
    *,
    priority: Priority,
    expires_at: float,
    tenant: str = "default",
    rules: Rules = NO_RULES,
    notes: list[str] | None = None,
) -> Iterator[NewJob | BadLine]:
    """Every line of the input as a job or a BadLine. `rules`: those of the tenant. Raises InputError.

    `notes` receives sentences on how the input was read.
    """
    reader = JobReader(shape, settings, priority, expires_at, tenant, endpoint=None, rules=rules)
    noted = InputNotes(path.name)
    rows = _sheet_rows(path, shape, noted) if is_sheet(path, shape) else _json_rows(path, shape, noted)
    for line, row in islice(rows, shape.limit):
        yield reader.job(line, row)
    if notes is not None:
        notes += noted.sentences


def is_sheet(path: Path, shape: Shape) -> bool:
    """Whether an input is read as CSV: by its suffix, or, for other suffixes, because only CSV takes a template."""
    suffix = inner_suffix(path)
    return suffix in SHEETS or (suffix not in JSON_SUFFIXES and shape.prompt is not None)


@dataclass(slots=True)
class Row:
    """One parsed line: the request, the caller's id if any, and the columns that the output repeats."""

    body: dict[str, Any]
    custom_id: str | None = None
    extra: str | None = None
    endpoint: Endpoint | None = None  # None: not given by the line


class JobReader:
    """Turns the rows of one input into jobs, and finds duplicate ids."""

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
        """`endpoint` None: that of the first row, or chat completions if it has none. `rules`: those of the tenant."""
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
        """A `row` that is text is an error message."""
        if isinstance(row, str):
            return BadLine(line, row)
        custom_id = str(line) if row.custom_id is None else row.custom_id
        try:
            chain, body = self._request(row, custom_id)
            document = write_json(body).decode()
        except RequestError as error:
            return BadLine(line, str(error), error.code, error.param)
        earlier = self._custom_ids.first(custom_id, line)
        if earlier != line:
            reason = f"{self._shape.id_column or 'custom_id'} {custom_id!r} was already used on line {earlier}"
            return BadLine(line, reason, "duplicate_custom_id", "custom_id")
        tokens, most = ENDPOINTS[chain.endpoint].estimate_tokens(body), most_output_tokens(body)
        plain = chain.endpoint == CHAT and is_plain(body)
        return NewJob(
            id=new_id("job"),
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
            named=row.custom_id is not None,
        )

    def _request(self, row: Row, custom_id: str) -> tuple[Chain, dict[str, Any]]:
        endpoint = self._endpoint_of(row)
        refuse_misspelt(row.body)
        body = self._with_params(as_chat(row.body) if endpoint == CHAT else row.body)
        body = ENDPOINTS[endpoint].canonical(body)
        ENDPOINTS[endpoint].check(body)
        if self._shape.system is not None:
            if endpoint != CHAT:
                raise RequestError(f"a system prompt does not apply to {endpoint}; omit --system", "system")
            body = {**body, "messages": [{"role": "system", "content": self._shape.system}, *body["messages"]]}
        if self._router is None:
            self._router = Router(self._settings, self._shape.route, endpoint=endpoint, rules=self._rules)
        return self._router.resolve(body, custom_id)

    def _with_params(self, body: dict[str, Any]) -> dict[str, Any]:
        """Add default parameters. Those of the line win; the output token limit has two names."""
        if not self._shape.params:
            return body
        said = {*body, *(OUTPUT_WORDS if not body.keys().isdisjoint(OUTPUT_WORDS) else ())}
        return {**{name: value for name, value in self._shape.params.items() if name not in said}, **body}

    def _endpoint_of(self, row: Row) -> Endpoint:
        """The endpoint of all rows of one input, which must be the same."""
        if self._endpoint is None:
            self._endpoint = row.endpoint or CHAT
        if row.endpoint not in (None, self._endpoint):
            raise RequestError(f"'url' must be {self._endpoint}, as on the lines before", "url", "invalid_url")
        return self._endpoint


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """A chat-completion body; a `prompt` is converted. Raises RequestError."""
    if "messages" not in body and "prompt" in body:
        return _from_prompt(body)
    if "messages" not in body:
        raise RequestError(f"has neither 'prompt' nor 'messages'{_fields_of(body)}", "messages")
    return body


def request_of(job: NewJob) -> str:
    """A hash of the request: messages and parameters in any order, without the model or chain."""
    asked = orjson.dumps(orjson.loads(job.body), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(asked, digest_size=16, key=job.chain.endpoint.encode()).hexdigest()


def _fields_of(body: Mapping[str, Any]) -> str:
    """The end of an error message about a line without a prompt: the fields it has instead."""
    if "params" in body:
        return "; 'params' of Anthropic's batches corresponds to 'body' here"
    names = [f"'{name}'" for name in body if name.isidentifier() and len(name) <= NAME_SHOWN_CHARS]
    return f"; it has {', '.join(names[:NAMES_SHOWN])}{', …' if len(names) > NAMES_SHOWN else ''}" if names else ""


def _from_prompt(body: dict[str, Any]) -> dict[str, Any]:
    prompt, system = body["prompt"], body.get("system")
    if not isinstance(prompt, str) or not isinstance(system, str | None):
        raise RequestError("'prompt' and 'system' must be strings", "prompt")
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {**{key: value for key, value in body.items() if key not in ("prompt", "system")}, "messages": messages}


def _lines(readline: Callable[[int], bytes]) -> Iterator[tuple[int, bytes | str]]:
    """Lines without line ends, numbered from 1; a line that is too long is skipped and yields an error message."""
    number = 0
    while raw := readline(LINE_MAX_BYTES + 1):
        number += 1
        if len(raw) > LINE_MAX_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = readline(LINE_MAX_BYTES)
            yield number, f"longer than {LINE_MAX_BYTES // 1024 // 1024} MiB"
            continue
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        raw = raw.strip()
        if raw:
            yield number, raw


def _json_rows(path: Path, shape: Shape, noted: InputNotes) -> Iterator[tuple[int, Row | str]]:
    for option, value in (("--prompt", shape.prompt), ("--id-column", shape.id_column)):
        if value is not None:
            raise InputError(f"{option} applies to CSV inputs (.csv); this input is read as JSON lines")
    marked = marked_encoding(path)
    with open_input(path) as stream:
        start = stream.readline(LINE_MAX_BYTES).removeprefix(BYTE_ORDER_MARK).strip()
    if start in (b"[", b"{") or start.startswith(b"[{"):
        raise InputError(f"{path.name} {_as_lines(start)}")
    if start and not start.startswith((b"{", b"[")) and marked is None and inner_suffix(path) in TEXTS:
        raise InputError(f"{path.name} is not JSON lines; {TEXT_REMEDY}")
    if marked is None or marked == UTF8_MARKED:
        with open_input(path) as stream:
            yield from _rows_of_lines(_lines(stream.readline), noted)
        return
    with open_text(path, Encoding(marked)) as text:
        yield from _rows_of_lines(_lines(lambda size: text.readline(size).encode()), noted)


def _rows_of_lines(lines: Iterator[tuple[int, bytes | str]], noted: InputNotes) -> Iterator[tuple[int, Row | str]]:
    for number, raw in lines:
        if isinstance(raw, str):
            yield number, raw
            continue
        try:
            row = row_of(parse_line(raw))
        except RequestError as error:
            yield number, str(error) if is_utf8(raw) else NOT_UTF8
            continue
        if "prompt" in row.body:
            noted.beside_prompt(row.body.keys())
        yield number, row


def _as_lines(start: bytes) -> str:
    """The end of an error message about JSON that is not in lines, judged by its first line."""
    if start == b"{":
        return "is JSON spread over several lines; write each object on one line, e.g. with jq -c ."
    return "is a JSON array; write each object on its own line, e.g. with jq -c '.[]'"


def checked_id(value: object, what: str = "custom_id") -> str | None:
    """A caller's id for a request: a string, or an integer as text. `what` is its name in the RequestError raised."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RequestError(f"{what} must be a string", "custom_id")
    text = str(value)
    if not 1 <= len(text) <= CUSTOM_ID_MAX or "\0" in text:
        raise RequestError(f"{what} must have 1 to {CUSTOM_ID_MAX} characters, none of them NUL", "custom_id")
    return text


def row_of(document: dict[str, Any]) -> Row:
    """A request in any supported JSON line format. Raises RequestError."""
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
    served = endpoint_named(url)
    if (url is not None and served is None) or document.get("method", "POST") != "POST":
        raise RequestError(f"only POST {' and '.join(ENDPOINTS)} are supported", "url")
    return served


def csv_form(source: Path, shape: Shape, output: Path, *, safe: bool = False) -> CsvForm:
    """The format of a CSV output: one that the spreadsheet program of the input can read. Raises InputError."""
    separator = SEPARATORS.get(output.suffix.lower())
    if separator is None or not is_sheet(source, shape):
        return CsvForm(separator or CSV.separator, safe=safe)
    _, sheet = _read_form(source, shape)
    is_tab = inner_suffix(source) != ".csv" and sheet.separator == SEPARATORS[".tsv"]
    if output.suffix.lower() == ".csv" and not is_tab:
        separator = sheet.separator
    return CsvForm(separator, marked=not sheet.encoding.is_plain, safe=safe)


def _read_form(path: Path, shape: Shape) -> tuple[Template, Sheet]:
    if shape.prompt is None:
        raise InputError("a CSV input needs --prompt with column names in braces, e.g. --prompt 'Describe {name}'")
    template = Template.parse(shape.prompt)
    sheet = sheet_of(path, [*template.columns, *([shape.id_column] if shape.id_column is not None else [])])
    if not template.columns:
        raise InputError(
            "--prompt contains no column, so every row would get the same prompt; put column names in braces, "
            f"e.g. --prompt 'Describe {{{sheet.named[0]}}}'"
        )
    return template, sheet


def _sheet_rows(path: Path, shape: Shape, noted: InputNotes) -> Iterator[tuple[int, Row | str]]:
    template, sheet = _read_form(path, shape)
    noted.wrong_line = sheet.encoding.wrong_line
    in_prompt = [sheet.places[name] for name in template.columns]
    rows = Rows(path, sheet)
    for line, cells in rows:
        noted.empty_rows = rows.empty
        if len(cells) == len(sheet.columns) and not all(cells[place].strip() for place in in_prompt):
            noted.blank_row(line)
        yield line, _row_of_sheet(cells, sheet, template, shape.id_column)
    noted.empty_rows = rows.empty


def _row_of_sheet(cells: list[str], sheet: Sheet, template: Template, id_column: str | None) -> Row | str:
    if len(cells) != len(sheet.columns):
        columns = "1 column" if len(cells) == 1 else f"{len(cells):,} columns"
        return f"has {columns}, but the header has {len(sheet.columns):,}"
    row = {name: cells[place] for name, place in sheet.places.items()}
    try:
        custom_id = checked_id(row[id_column], repr(id_column)) if id_column is not None else None
    except RequestError as error:
        return str(error)
    named = dict(zip(sheet.names, cells, strict=True))
    return Row({"prompt": template.fill(row)}, custom_id, orjson.dumps(named).decode())
