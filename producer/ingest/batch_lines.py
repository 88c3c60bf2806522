"""Reads an OpenAI batch file: from chunks of bytes to jobs, or to errors per line.

Strict where `producer.ingest.intake` is lenient, because the file follows OpenAI's format: `{"custom_id": "r1",
"method": "POST", "url": "/v1/chat/completions", "body": {…}}` and nothing else. A line that is too long is skipped
while it arrives, so memory stays flat.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.request.endpoints import ENDPOINTS, endpoint_named
from understudy.models.request.wire import BYTE_ORDER_MARK, NOT_FOUND, LineError, RequestError, is_utf8, parse_line
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.request_options import RouteOptions, refuse_misplaced
from understudy.models.schemas.process import the_judge
from understudy.models.state import Priority
from understudy.producer.ingest.decoding import GZIP, LINE_MAX_BYTES, MARKS, NOT_UTF8, UTF8_MARKED, kind_of
from understudy.producer.ingest.input_rows import Row, Shape, checked_id
from understudy.producer.ingest.intake import BadLine, JobReader
from understudy.producer.runs.preflight import Preflight

MAX_ERRORS = 100
"""Errors after which reading stops."""

SCHEMAS_S, SCHEMAS_S_PER_LINE = 20.0, 0.001
"""CPU time that the schemas of a file may take, because other batches wait meanwhile."""

REQUIRED = ("custom_id", "method", "url", "body")
METHOD = "POST"
IN_BODY = ("invalid_request", NOT_FOUND)
"""Codes of errors in a field of the `body`: they are reported as one code, with the field as `param`."""

BARE = ("prompt", "messages")
NO_LINE = (
    'is a bare request body; a batch line has the form {"custom_id": "…", "method": "POST", "url": '
    '"/v1/chat/completions", "body": {"messages": […]}}. `understudy run` and `submit` accept bare bodies'
)
EMPTY_FILE = LineError(code="empty_file", message="The input file has no lines; nothing was accepted.")


SCHEMAS_TOO_COSTLY = (
    f"preparing the distinct schemas up to this line took more than {SCHEMAS_S:.0f} s, the limit for one batch; "
    "look for large repetition counts in patterns, or use the same schema on each line"
)


class LineSplitter:
    """Splits chunks into lines without line ends, numbered from 1. Skips blank lines; None is a line that is too
    long."""

    def __init__(self, max_bytes: int = LINE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._too_long = False
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._add(part)
            yield from self.end()
        self._add(rest)

    def end(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the last line."""
        raw, too_long = bytes(self._line), self._too_long
        self._line.clear()
        self._too_long = False
        self._number += 1
        if self._number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if too_long:
            yield self._number, None
        elif raw := raw.strip():
            yield self._number, raw

    def _add(self, part: bytes) -> None:
        if not self._too_long:
            self._line += part
        if len(self._line) > self._max_bytes:
            self._too_long = True
            self._line = bytearray()


class BatchReader:
    """Turns the chunks of one file into jobs. After the first error it only collects further errors."""

    def __init__(
        self,
        settings: Settings,
        endpoint: Endpoint,
        route: RouteOptions,
        *,
        priority: Priority = Priority.BULK,
        tenant: str = "default",
        rules: Rules = NO_RULES,
        expected_lines: int = 0,
        written_lines: int = 0,
    ) -> None:
        """`written_lines`: the jobs up to this line are already in the ledger."""
        self._endpoint = endpoint
        self._splitter = LineSplitter()
        self._jobs = JobReader(
            Shape(route=route),
            settings,
            priority=priority,
            tenant=tenant,
            rules=rules,
            endpoint=endpoint,
            expected_lines=expected_lines,
        )
        self._written_lines = written_lines
        self.errors: list[LineError] = []
        self.total = 0
        self.preflight = Preflight(settings)
        self._schemas_s = 0.0
        self.is_over = False

    @property
    def full(self) -> bool:
        """Whether reading can stop: after MAX_ERRORS errors, or a fatal one."""
        return self.is_over or len(self.errors) >= MAX_ERRORS

    def read(self, chunk: bytes) -> list[NewJob]:
        return self._jobs_of(self._splitter.feed(chunk))

    def finish(self) -> list[NewJob]:
        """The job of a last line without a line end."""
        jobs = self._jobs_of(self._splitter.end())
        if not self.total and not self.errors:
            self.errors.append(EMPTY_FILE)
        return jobs

    def _jobs_of(self, lines: Iterator[tuple[int, bytes | None]]) -> list[NewJob]:
        jobs: list[NewJob] = []
        for number, raw in lines:
            if self.full:
                break
            made = self._within_time(number, raw)
            if isinstance(made, BadLine):
                self.errors.append(_line_error(made))
                continue
            self.total += 1
            self.preflight.add(made)
            if made.line > self._written_lines:
                jobs.append(made)
        return [] if self.errors else jobs

    def _within_time(self, number: int, raw: bytes | None) -> NewJob | BadLine:
        before = the_judge().spent_s()
        made = self._job(number, raw)
        self._schemas_s += the_judge().spent_s() - before
        if self._schemas_s <= SCHEMAS_S + SCHEMAS_S_PER_LINE * number:
            return made
        self.is_over = True
        return BadLine(number, SCHEMAS_TOO_COSTLY, "schemas_too_costly", "body.response_format")

    def _job(self, number: int, raw: bytes | None) -> NewJob | BadLine:
        if raw is None:
            return BadLine(number, f"is longer than {LINE_MAX_BYTES // 1024 // 1024} MiB", "line_too_long")
        try:
            row = batch_row(parse_line(raw), self._endpoint)
        except RequestError as error:
            if error.code == "invalid_json" and not is_utf8(raw):
                return BadLine(number, _why_not_utf8(raw) if number == 1 else NOT_UTF8, error.code)
            return BadLine(number, str(error), error.code, error.param)
        made = self._jobs.job(number, row)
        if isinstance(made, BadLine) and made.code in IN_BODY and made.param is not None:
            return BadLine(number, made.reason, IN_BODY[0], f"body.{made.param}")
        return made


def batch_row(document: Mapping[str, Any], endpoint: Endpoint) -> Row:
    """A line in the format of OpenAI and Azure. Raises RequestError."""
    if "body" not in document and not document.keys().isdisjoint(BARE):
        raise RequestError(NO_LINE, "body", "missing_required_parameter")
    for word in REQUIRED:
        if document.get(word) is None:
            raise RequestError(f"'{word}' is missing", word, "missing_required_parameter")
    custom_id, body = document["custom_id"], document["body"]
    if not isinstance(custom_id, str):
        raise RequestError("'custom_id' must be a string", "custom_id", "invalid_type")
    if document["method"] != METHOD:
        raise RequestError(f"'method' must be {METHOD}", "method", "invalid_method")
    if endpoint_named(document["url"]) != endpoint:
        raise RequestError(f"'url' must be the batch's endpoint, {endpoint}", "url", "invalid_url")
    if not isinstance(body, dict):
        raise RequestError("'body' must be an object", "body", "invalid_type")
    refuse_misplaced(document)
    if (needed := ENDPOINTS[endpoint].needs) not in body:
        raise RequestError(f"'{needed}' is missing", f"body.{needed}", "missing_required_parameter")
    return Row(body, checked_id(custom_id))


def _why_not_utf8(start: bytes) -> str:
    """Why a file that starts with these bytes is not UTF-8. Uploads are read as they are, never converted."""
    if start.startswith(GZIP):
        return "the file is compressed with gzip; upload it unpacked"
    if any(start.startswith(mark) for mark, encoding in MARKS if encoding != UTF8_MARKED):
        return "the file is UTF-16 or UTF-32 text; save it as UTF-8"
    what, remedy = kind_of(start) or ("", "")
    return f"the file is {what}; {remedy}" if what else NOT_UTF8


def _line_error(bad: BadLine) -> LineError:
    code = "invalid_json_line" if bad.code == "invalid_json" else bad.code
    return LineError(code=code, message=f"Line {bad.line}: {bad.reason}.", param=bad.param, line=bad.line)
