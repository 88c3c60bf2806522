"""The rows of an input: JSON lines in three shapes, and CSV with a template.

    {"custom_id": …, "body": {…}}     OpenAI batch lines
    {"messages": […], …}              bare chat-completion bodies
    {"prompt": "…", …}                prompts, optionally with `system` and other parameters
    name,colour / Ada,red             CSV; `--prompt 'Write a blurb for {name}'`

Memory stays flat: each line is read, parsed and passed on.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from understudy.models.request.endpoints import ENDPOINTS, endpoint_named
from understudy.models.request.wire import BYTE_ORDER_MARK, RequestError, is_utf8, parse_line
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.request_options import ROUTE_WORDS, RouteOptions, refuse_misplaced
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
from understudy.producer.number_format import counted
from understudy.producer.runs.output import CSV, SEPARATORS, CsvForm

FIELDS_NAMED = 5


MOST_FIELDS = 1_000


PARAMETERS = frozenset(
    """
    prompt system audio extra_body frequency_penalty function_call functions include_reasoning logit_bias logprobs
    max_completion_tokens max_tokens metadata modalities model n parallel_tool_calls prediction presence_penalty
    prompt_cache_key prompt_cache_retention reasoning reasoning_effort response_format safety_identifier seed
    service_tier stop store stream stream_options temperature thinking tool_choice tools top_logprobs top_p user
    verbosity web_search_options chat_template_kwargs enable_thinking guided_json ignore_eos keep_alive min_p
    min_tokens models options plugins provider random_seed repetition_penalty safe_prompt search_parameters
    structured_outputs think top_a top_k transforms usage
    """.split()
)
"""Fields allowed next to a prompt: OpenAI's parameters, and those documented by providers with the same protocol."""


KNOWN = PARAMETERS.union(ROUTE_WORDS)


@dataclass(slots=True)
class InputNotes:
    """Notes on the input `name`. `wrong_line`: the first line that is not UTF-8, if it is read as Windows-1252."""

    name: str
    wrong_line: int | None = None
    empty_rows: int = 0
    blank_rows: int = 0
    first_blank: int = 0
    beside: Counter[str] = field(default_factory=Counter)

    def blank_row(self, line: int) -> None:
        """Note a row with an empty cell in a column of the prompt."""
        self.blank_rows += 1
        self.first_blank = self.first_blank or line

    def beside_prompt(self, names: Set[str]) -> None:
        """Note the fields of a line that has a prompt."""
        unknown = names - KNOWN
        if unknown and len(self.beside) < MOST_FIELDS:
            self.beside.update(name[:80] for name in sorted(unknown))

    @property
    def sentences(self) -> list[str]:
        said = []
        if self.wrong_line is not None:
            said.append(f"{self.name} is not UTF-8 (line {self.wrong_line:,}); reading it as Windows-1252")
        if self.empty_rows:
            said.append(f"skipped {counted(self.empty_rows, 'empty row')}")
        if self.blank_rows:
            rows = f"{counted(self.blank_rows, 'row')} {'has' if self.blank_rows == 1 else 'have'}"
            said.append(f"{rows} an empty cell in a column of the prompt, the first on line {self.first_blank:,}")
        for name, lines in self.beside.most_common(FIELDS_NAMED):
            have = f"{counted(lines, 'line')} {'has' if lines == 1 else 'have'}"
            said.append(f"{have} a field '{name}', which is sent as a parameter; providers reject unknown parameters")
        return said


CUSTOM_ID_MAX = 512


TEXTS = frozenset({".txt", ".text", ".md", ".dat"})


TEXT_REMEDY = 'each line must be an object such as {"prompt": "…"}; for a table with a header line, use --prompt'


JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})


@dataclass(frozen=True, slots=True)
class Shape:
    """The options that shape requests."""

    prompt: str | None = None
    system: str | None = None
    id_column: str | None = None
    route: RouteOptions = field(default_factory=RouteOptions)
    limit: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)  # defaults for requests that do not set them


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


def json_rows(path: Path, shape: Shape, noted: InputNotes) -> Iterator[tuple[int, Row | str]]:
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


def sheet_rows(path: Path, shape: Shape, noted: InputNotes) -> Iterator[tuple[int, Row | str]]:
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
