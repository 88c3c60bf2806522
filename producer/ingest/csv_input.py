"""CSV inputs: what spreadsheets write, row by row, and the template that makes prompts of it.

The separator is the one under which the header has the columns that the command names: a comma, a semicolon (Excel
where numbers have decimal commas), a tab, or what a first line `sep=;` says.
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
"""Excel's own: it is no row, it tells the separator of the rows that follow."""

HEADER_MAX_LINES = 100
COLUMNS_SHOWN = 20
COLUMN_SHOWN_CHARS = 40
ALIKE = 0.6


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
    """How a CSV file is written: `columns` as they stand in its header, which ends on the line `header_end`, from 1.

    `places` are the indexes of the columns that a person named, by that name.
    """

    encoding: Encoding
    separator: str
    columns: tuple[str, ...]
    header_end: int
    places: Mapping[str, int]

    @cached_property
    def names(self) -> list[str]:
        """By which the output repeats cells. Columns without a name get blanks, each so many that they differ."""
        blanks = (" " * number for number in count())
        return [column if column.strip() else next(blanks) for column in self.columns]

    @property
    def named(self) -> list[str]:
        """The columns that have a name, without blanks around it."""
        return [column.strip() for column in self.columns if column.strip()]


class Row(NamedTuple):
    """The cells of a record, and the line on which it begins."""

    line: int
    cells: list[str]


def sheet_of(path: Path, wanted: Sequence[str]) -> Sheet:
    """How a CSV file is written; `wanted` are the columns that must be there. Raises InputError."""
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
    """The header is the first record that says anything."""
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
    """Where a column stands: as it is written, or else without blanks around it."""
    for known, wanted in ((list(columns), name), ([column.strip() for column in columns], name.strip())):
        if wanted in known:
            return known.index(wanted)
    return None


def _check(sheet: Sheet, wanted: Iterable[str]) -> None:
    if not sheet.columns:
        raise InputError("the CSV is empty; its first line must name the columns")
    named = [column for column in sheet.columns if column.strip()]
    if len(set(named)) != len(named):
        raise InputError(f"line {sheet.header_end}: the CSV header names a column twice")
    for name in wanted:
        if name not in sheet.places:
            raise InputError(f"the CSV has no column {_shown(name)!r}{_meant(name, sheet.named)}")


def _meant(name: str, columns: list[str]) -> str:
    """The end of a sentence about a column that is none."""
    known = ", ".join(map(_shown, columns[:COLUMNS_SHOWN])) + (", …" if len(columns) > COLUMNS_SHOWN else "")
    if re.search(r"[\"'{}\n]", name):
        return f"; it has {known}. Braces name columns: write a literal brace twice, {{{{ or }}}}"
    by_lower = {column.lower(): column for column in reversed(columns)}
    near = get_close_matches(name.strip().lower(), by_lower, n=1, cutoff=ALIKE)
    return f"; it has {known}" + (f"; did you mean {_shown(by_lower[near[0]])!r}?" if near else "")


def _shown(name: str) -> str:
    """Short, and without what would move the cursor of a terminal."""
    name = "".join(character if character.isprintable() else "�" for character in name[: COLUMN_SHOWN_CHARS + 1])
    return name if len(name) <= COLUMN_SHOWN_CHARS else name[: COLUMN_SHOWN_CHARS - 1] + "…"


@dataclass(slots=True)
class Rows:
    """The records of a CSV file below its header, without empty cells beyond its columns.

    `empty` counts those that hold separators and nothing else; they are passed over.
    """

    path: Path
    sheet: Sheet
    empty: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Row]:
        """Raises InputError where the next record cannot be found: going on would drop or mix lines without a word."""
        csv.field_size_limit(LINE_MAX_BYTES)  # the default of 128 KiB is less than a document to be summarised
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
        return f"a quote that is opened on line {line} or below is never closed; nothing after it can be read"
    if "field larger" in reason:
        most = LINE_MAX_BYTES // 1024 // 1024
        return f"line {line}: a cell is longer than {most} MiB; is a quote before it never closed?"
    if "expected after" in reason:
        mark = {"\t": "a tab"}.get(separator, repr(separator))
        reason = f'after a closing quote must come {mark}; a quote inside of quotes is written twice ("")'
    return f"line {line} and what follows cannot be read: no valid CSV: {reason}"
