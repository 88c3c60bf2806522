"""Detects the encoding of an input file, gzip compression, and files that are not text.

    InputError    the input as a whole cannot be used

Only certain cases are assumed: a byte order mark, valid UTF-8, and Windows-1252 if nothing indicates UTF-8.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from understudy.models.errors import WrongUse

LINE_MAX_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1 << 20
HEAD_BYTES = 64

UTF8_MARKED = "utf-8-sig"
NOT_UTF8 = "not UTF-8 text; convert the file first, e.g. with iconv"

GZIP = b"\x1f\x8b"
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, UTF8_MARKED),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks with Python's encoding names, longer ones first."""

UNPACK = "unpack it first"
SAVE_AS_CSV = "open it in Excel, save it as 'CSV UTF-8' and use that file"
NO_TEXT = (
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook in the old .xls format", SAVE_AS_CSV),
    (b"PAR1", "a Parquet file", "convert it to JSON lines or CSV first, for instance with DuckDB or pandas"),
    (b"SQLite format 3\0", "an SQLite database", "export the rows as JSON lines or CSV first"),
    (b"%PDF", "a PDF", "prompts are read from JSON lines or CSV"),
    (b"BZh", "compressed with bzip2", UNPACK),
    (b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
)
"""First bytes of files that are not text, what they are, and what to do."""

WORKBOOKS = frozenset({".xlsx", ".xlsm", ".xlsb", ".ods", ".numbers"})
"""Spreadsheets that are zip archives inside."""

MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
HIGH = re.compile(rb"[\x80-\xff]")
LONE_PER_MULTIBYTE = 10
"""Windows-1252 text contains hardly any valid multibyte UTF-8. A file with more of it is UTF-8 with a few invalid
bytes, and reading it as Windows-1252 would garble the valid text."""


class InputError(WrongUse):
    """The input as a whole cannot be used. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """`name`: Python's name. `wrong_line`: the first line that is not UTF-8, if the file is read in another
    encoding."""

    name: str
    wrong_line: int | None = None

    @property
    def is_plain(self) -> bool:
        """UTF-8 without a byte order mark."""
        return self.name == "utf-8"


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """The bytes of an input, decompressed if it is gzip. Raises InputError for files that are not text."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if not head.startswith(GZIP):
            _refuse_no_text(path, head)
            yield file
            return
        try:
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise InputError(f"{path.name} is a damaged or truncated gzip file; create it again") from None


def inner_suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case: `.csv` for in.CSV and in.csv.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def encoding_of(path: Path) -> Encoding:
    """Reads the whole file unless it has a byte order mark. Raises InputError with the offending line."""
    marked = marked_encoding(path)
    if marked is not None and marked != UTF8_MARKED:
        return Encoding(marked)
    with open_input(path) as stream:
        seen = _Seen.of(stream)
    if seen.wrong_line is None:
        return Encoding(marked or "utf-8")
    if seen.undefined_line is not None and marked is None:
        raise InputError(f"line {seen.undefined_line} is {NOT_UTF8}")
    if marked or seen.multibyte * LONE_PER_MULTIBYTE >= seen.lone:
        raise InputError(f"line {seen.wrong_line} is {NOT_UTF8}")
    return Encoding("cp1252", seen.wrong_line)


def marked_encoding(path: Path) -> str | None:
    """The encoding given by a byte order mark. Raises InputError."""
    with open_input(path) as stream:
        head = stream.read(HEAD_BYTES)
    marked = next((name for mark, name in MARKS if head.startswith(mark)), None)
    if marked is None and b"\0" in head:
        raise InputError(
            f"{path.name} is not UTF-8 text: it contains NUL characters; if it is UTF-16, save it as UTF-8"
        )
    return marked


@contextmanager
def open_text(path: Path, encoding: Encoding) -> Iterator[io.TextIOWrapper]:
    """The text of an input, line ends unchanged. Raises InputError with the line that cannot be decoded."""
    try:
        with open_input(path) as stream:
            yield io.TextIOWrapper(stream, encoding=encoding.name, newline="")
    except UnicodeError:
        line = _undecodable_line(path, encoding)
        raise InputError(f"line {line} is not valid {encoding.name.upper()}; save the file as UTF-8") from None


@dataclass(slots=True)
class _Seen:
    """The non-ASCII content of a file."""

    wrong_line: int | None = None  # the first line that is not UTF-8
    undefined_line: int | None = None  # the first line that is not Windows-1252 either
    multibyte: int = 0  # multibyte UTF-8 characters
    lone: int = 0  # high bytes outside them

    @classmethod
    def of(cls, stream: BinaryIO) -> "_Seen":
        seen, number = cls(), 0
        while line := stream.readline(LINE_MAX_BYTES):
            number += 1
            if not line.isascii():
                seen._note(line, number)
        return seen

    def _note(self, line: bytes, number: int) -> None:
        found = MULTIBYTE.findall(line)
        self.multibyte += len(found)
        if _decodes(line, "utf-8"):
            return
        self.wrong_line = self.wrong_line or number
        self.lone += len(HIGH.findall(line)) - sum(map(len, found))
        if self.undefined_line is None and not _decodes(line, "cp1252"):
            self.undefined_line = number


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _refuse_no_text(path: Path, head: bytes) -> None:
    if (found := kind_of(head)) is not None:
        what, remedy = found
        if remedy == UNPACK and path.suffix.lower() in WORKBOOKS:
            what, remedy = "a spreadsheet, not a text file", SAVE_AS_CSV
        raise InputError(f"{path.name} is {what}; {remedy}")


def kind_of(head: bytes) -> tuple[str, str] | None:
    """What kind of file starts with these bytes, if it is not text, and what to do."""
    return next(((what, remedy) for start, what, remedy in NO_TEXT if head.startswith(start)), None)


def _undecodable_line(path: Path, encoding: Encoding) -> int:
    """The line is searched again, because the reader decodes ahead of the line it returns."""
    decoder, line = codecs.getincrementaldecoder(encoding.name)(), 1
    with open_input(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].decode(error.encoding, "ignore").count("\n")
    return line
