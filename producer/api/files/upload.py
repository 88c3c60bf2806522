"""Parses a multipart upload while it arrives: streams the file, and collects the fields."""

import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from understudy.models.request.wire import RequestError
from understudy.producer.api.bodies import arriving
from understudy.producer.api.errors import ApiError

KIND = "multipart/form-data"
FILE, PURPOSE, ANCHOR, SECONDS = "file", "purpose", "expires_after[anchor]", "expires_after[seconds]"
FIELDS = (PURPOSE, ANCHOR, SECONDS)

BATCH = "batch"
CREATED_AT = "created_at"
SHORTEST_S, LONGEST_S = 3_600, 2_592_000
"""OpenAI's range for `expires_after`: an hour to 30 days."""

FIELD_BYTES = 256
NAME_CHARACTERS = 255
HEADER_BYTES = 32 * 1024
LENGTH_DIGITS = 18
BESIDE_FILE_BYTES = 256 * 1024
"""Maximum size of boundaries, headers and fields together, without the file."""

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Upload:
    """The body of an upload request. `declared`: its Content-Length, or 0; `chunks`: the file. The other attributes are
    known once `chunks` has ended."""

    def __init__(self, request: Request, max_file_bytes: int) -> None:
        """Raises ApiError and RequestError for invalid headers."""
        self.filename: str | None = None
        self._fields: dict[str, bytes] = {}
        self._request = request
        self._max_file_bytes = max_file_bytes
        self._pending: list[bytes] = []
        self._header = ["", ""]
        self._disposition = b""
        self._part: str | None = None
        self._ended = False
        declared = request.headers.get("content-length", "")[:LENGTH_DIGITS]
        self.declared = int(declared) if declared.isdecimal() else 0
        if self.declared > max_file_bytes + BESIDE_FILE_BYTES:
            raise self._too_large()
        callbacks: Any = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(_boundary(request), callbacks, max_header_size=HEADER_BYTES)
        except FormParserError:
            raise _malformed("its boundary is too long") from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file as they arrive. Raises ApiError and RequestError as soon as something is wrong."""
        arrived = 0
        try:
            async for data in arriving(self._request):
                arrived += len(data)
                if arrived > self._max_file_bytes + BESIDE_FILE_BYTES:
                    raise self._too_large()
                self._parser.write(data)
                if self._pending:
                    yield b"".join(self._pending)
                    self._pending.clear()
        except FormParserError:
            raise _malformed("its parts are not separated by its boundary") from None
        except ClientDisconnect:
            raise ApiError(400, "the upload ended prematurely", code="incomplete") from None
        self._check_whole()

    @property
    def lives_s(self) -> float | None:
        """Lifetime of the file in seconds; None: until it is deleted."""
        return float(self._fields[SECONDS]) if SECONDS in self._fields else None

    def _check_whole(self) -> None:
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if self.filename is None:
            raise RequestError("'file' is missing: send the lines as a part with this name and a filename", FILE)
        if PURPOSE not in self._fields:
            raise RequestError("'purpose' is missing; use 'batch' for the input of a batch", PURPOSE)
        if (ANCHOR in self._fields) != (SECONDS in self._fields):
            missing = SECONDS if ANCHOR in self._fields else ANCHOR
            raise RequestError(f"'{missing}' is missing: 'expires_after' needs both an anchor and seconds", missing)

    def _on_part_begin(self) -> None:
        self._disposition = b""
        self._header = ["", ""]

    def _on_header(self, place: int, data: bytes) -> None:
        self._header[place] += data.decode("latin-1")

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == "content-disposition":
            self._disposition = value.encode("latin-1")
        self._header = ["", ""]

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        given = options.get(b"filename")
        self._part = name
        if name == FILE:
            self._begin_file(given)
        elif given is not None:
            raise RequestError("only 'file' may be a file; send other fields as text", name[:80] or None)
        elif name not in FIELDS:
            raise RequestError(
                f"'{_shown(name)}' is not a field of an upload; the fields are file, {', '.join(FIELDS)}"
            )
        elif name in self._fields:
            raise RequestError(f"'{name}' occurs twice; send it once", name)
        else:
            self._fields[name] = b""

    def _begin_file(self, given: bytes | None) -> None:
        if self.filename is not None:
            raise RequestError("'file' occurs twice; upload one file per request", FILE)
        if given is None:
            raise RequestError("'file' must be a file: send it with a filename", FILE)
        self.filename = _plain_name(given)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == FILE:
            self._pending.append(data[start:end])
            return
        assert self._part is not None
        self._fields[self._part] += data[start:end]
        if len(self._fields[self._part]) > FIELD_BYTES:
            raise RequestError(f"'{self._part}' is longer than {FIELD_BYTES} bytes", self._part)

    def _on_part_end(self) -> None:
        if self._part is not None and self._part in self._fields:
            _check_field(self._part, self._fields[self._part].decode(errors="replace"))
        self._part = None

    def _on_end(self) -> None:
        self._ended = True

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the file is longer than {self._max_file_bytes:,} bytes", param=FILE, code="file_too_large"
        )


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != KIND.encode():
        shown = _shown(kind.decode("latin-1")) or "of no type"
        raise ApiError(415, f"an upload must be {KIND}, not {shown}", code="content_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "compressed bodies are not supported; send it uncompressed", code="content_encoding")
    if not options.get(b"boundary"):
        raise _malformed("its Content-Type has no boundary")
    return options[b"boundary"]


def _check_field(name: str, value: str) -> None:
    if name == PURPOSE and value != BATCH:
        raise RequestError(f"'purpose' is '{_shown(value)}'; only 'batch' is supported", PURPOSE)
    if name == ANCHOR and value != CREATED_AT:
        raise RequestError(f"'{ANCHOR}' must be '{CREATED_AT}'", ANCHOR)
    if name == SECONDS and not (value.isascii() and value.isdecimal() and SHORTEST_S <= int(value) <= LONGEST_S):
        raise RequestError(f"'{SECONDS}' must be a whole number from {SHORTEST_S:,} to {LONGEST_S:,}", SECONDS)


def _plain_name(given: bytes) -> str:
    """The last path component of the given name, without control characters."""
    name = CONTROLS.sub("", re.split(r"[/\\]", given.decode(errors="replace"))[-1])
    if len(name) > NAME_CHARACTERS:
        raise RequestError(f"the name of 'file' is longer than {NAME_CHARACTERS} characters", FILE)
    return name or FILE


def _shown(text: str) -> str:
    return CONTROLS.sub("", text)[:80]


def _malformed(why: str) -> RequestError:
    return RequestError(f"the multipart body cannot be read: {why}", code="invalid_multipart")
