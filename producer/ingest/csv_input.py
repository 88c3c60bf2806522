"""CSV inputs as spreadsheets write them, row by row, and the template that turns rows into prompts.

The separator is the one with which the header contains the columns used in the command: comma, semicolon (Excel in
locales with decimal commas) or tab; or the one set by a first line `sep=;`.
"""

import csv
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple, TextIO

from understudy.producer.ingest.decoding import (
    LINE_MAX_BYTES,
    Encoding,
    InputError,
    encoding_of,
    inner_suffix,
    open_text,
)

SHEETS = frozenset({".csv", ".tsv", ".tab"})
TAB_SEPARATED = frozenset({".tsv", ".tab"})
SEPARATORS = (",", ";", "\t")
SEPARATOR_LINE = re.compile(r"\"?sep=(.)\"?[\r\n]*")
"""Excel's first line that sets the separator. It is not a row."""

HEADER_MAX_LINES = 100
COLUMNS_SHOWN = 20
COLUMN_SHOWN_CHARS = 40
ALIKE = 0.6


@dataclass(frozen=True, slots=True)
class Template:
    """`--prompt` of a CSV input, parsed: pieces of text, each with the column that follows it, if any."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Raises InputError. Everything between braces is a column name, including colons and dots."""
        try:
            return cls(tuple((before, _column(*rest)) for before, *rest in string.Formatter().parse(text)))
        except ValueError as error:
            raise InputError(
                f"--prompt is not a valid template ({error}); write a literal brace as {{{{ or }}}}"
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


@dataclass(frozen=True)
class Sheet:
    """The format of a CSV file: `columns` as in its header, which ends on line `header_end` (from 1).

    `places`: indexes of the columns used in the command, by name.
    """

    encoding: Encoding
    separator: str
    columns: tuple[str, ...]
    header_end: int
    places: Mapping[str, int]

    @cached_property
    def names(self) -> list[str]:
        """Column names for the output. Unnamed columns get a distinct number of spaces each."""
        blanks = (" " * number for number in count())
        return [column if column.strip() else next(blanks) for column in self.columns]

    @property
    def named(self) -> list[str]:
        """The names of the named columns, stripped."""
        return [column.strip() for column in self.columns if column.strip()]


class Row(NamedTuple):
    """The cells of a record, and the line on which it starts."""

    line: int
    cells: list[str]


def sheet_of(path: Path, wanted: Sequence[str]) -> Sheet:
    """The format of a CSV file. `wanted`: columns that must exist. Raises InputError."""
    encoding = encoding_of(path)
    with open_text(path, encoding) as text:
        head = list(islice(text, HEADER_MAX_LINES))
    said = SEPARATOR_LINE.fullmatch(head[0]) if head else None
    if said:
        separators: Sequence[str] = (said[1],)
    elif inner_suffix(path) in TAB_SEPARATED:
        separators = ("\t",)
    else:
        separators = SEPARATORS
    sheets = [_with_header(encoding, separator, head, 1 if said else 0, wanted) for separator in separators]
    chosen = max(sheets, key=lambda sheet: (len(sheet.places), len(sheet.columns)))
    _check(chosen, wanted)
    return chosen


def _with_header(encoding: Encoding, separator: str, head: Sequence[str], begin: int, wanted: Iterable[str]) -> Sheet:
    """The header is the first record that is not blank."""
    reader = csv.reader(islice(head, begin, None), delimiter=separator, strict=True)
    columns: list[str] = []
    try:
        while not any(column.strip() for column in columns):
            columns = next(reader)
    except (csv.Error, StopIteration):
        columns = []
    places = {name: place for name in wanted if (place := _place(name, columns)) is not None}
    return Sheet(encoding, separator, tuple(columns), begin + reader.line_num, places)


def _place(name: str, columns: Sequence[str]) -> int | None:
    """The index of a column: by exact name, or else ignoring surrounding whitespace."""
    for known, wanted in ((list(columns), name), ([column.strip() for column in columns], name.strip())):
        if wanted in known:
            return known.index(wanted)
    return None


def _check(sheet: Sheet, wanted: Iterable[str]) -> None:
    if not sheet.columns:
        raise InputError("the CSV is empty; its first line must contain the column names")
    named = [column for column in sheet.columns if column.strip()]
    if len(set(named)) != len(named):
        raise InputError(f"line {sheet.header_end}: the CSV header has a duplicate column name")
    for name in wanted:
        if name not in sheet.places:
            raise InputError(f"the CSV has no column {_shown(name)!r}{_meant(name, sheet.named)}")


def _meant(name: str, columns: list[str]) -> str:
    """The end of an error message about an unknown column."""
    known = ", ".join(map(_shown, columns[:COLUMNS_SHOWN])) + (", …" if len(columns) > COLUMNS_SHOWN else "")
    if re.search(r"[\"'{}\n]", name):
        return f"; it has {known}. Braces enclose column names: write a literal brace as {{{{ or }}}}"
    by_lower = {column.lower(): column for column in reversed(columns)}
    near = get_close_matches(name.strip().lower(), by_lower, n=1, cutoff=ALIKE)
    return f"; it has {known}" + (f"; did you mean {_shown(by_lower[near[0]])!r}?" if near else "")


def _shown(name: str) -> str:
    """Truncated, without control characters."""
    name = "".join(character if character.isprintable() else "�" for character in name[: COLUMN_SHOWN_CHARS + 1])
    return name if len(name) <= COLUMN_SHOWN_CHARS else name[: COLUMN_SHOWN_CHARS - 1] + "…"


@dataclass(slots=True)
class Rows:
    """The records of a CSV file after its header, without empty cells beyond the last column.

    `empty`: number of skipped records without any content.
    """

    path: Path
    sheet: Sheet
    empty: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Row]:
        """Raises InputError when a record cannot be parsed: continuing could silently drop or merge lines."""
        csv.field_size_limit(LINE_MAX_BYTES)  # the default of 128 KiB is too small for a document to summarise
        with open_text(self.path, self.sheet.encoding) as text:
            yield from self._records(text)

    def _records(self, text: TextIO) -> Iterator[Row]:
        skipped, columns = self.sheet.header_end, len(self.sheet.columns)
        reader = csv.reader(islice(text, skipped, None), delimiter=self.sheet.separator, strict=True)
        while True:
            line = skipped + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise InputError(_unreadable(line, error, self.sheet.separator)) from None
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield Row(line, cells if any(cells[columns:]) else cells[:columns])
            elif cells:
                self.empty += 1


def _unreadable(line: int, error: csv.Error, separator: str) -> str:
    reason = str(error)
    if "unexpected end of data" in reason:
        return f"a quote opened on line {line} or later is never closed; the rest cannot be read"
    if "field larger" in reason:
        most = LINE_MAX_BYTES // 1024 // 1024
        return f"line {line}: a cell is longer than {most} MiB; is an earlier quote never closed?"
    if "expected after" in reason:
        mark = {"\t": "a tab"}.get(separator, repr(separator))
        reason = f'a closing quote must be followed by {mark}; a quote inside quotes is doubled ("")'
    return f"line {line} and the rest cannot be read: invalid CSV: {reason}"
