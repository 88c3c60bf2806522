"""Turns the rows of inputs into validated jobs, one by one.

A bad line is a value (`BadLine`), not an exception, because all of them are reported together.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewJob
from understudy.models.request.endpoints import ENDPOINTS
from understudy.models.request.needs import OUTPUT_WORDS, is_plain, needs_of
from understudy.models.request.tokens import most_output_tokens
from understudy.models.request.wire import RequestError, write_json
from understudy.models.routing.chain import CHAT, Chain, Endpoint
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.request_options import refuse_misspelt
from understudy.models.routing.route import Router
from understudy.models.state import Priority
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.ingest.input_rows import InputNotes, Row, Shape, is_sheet, json_rows, sheet_rows

NAMES_SHOWN = 5
NAME_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot become a job: its number (from 1), the reason as one sentence, an error code, and the
    field."""

    line: int
    reason: str
    code: str = "invalid_request"
    param: str | None = None


def read_jobs(path: Path, reader: "JobReader", notes: list[str] | None = None) -> Iterator[NewJob | BadLine]:
    """Every line of the input as a job or a BadLine. Raises InputError.

    `notes` receives sentences on how the input was read.
    """
    shape, noted = reader.shape, InputNotes(path.name)
    rows = sheet_rows(path, shape, noted) if is_sheet(path, shape) else json_rows(path, shape, noted)
    for line, row in islice(rows, shape.limit):
        yield reader.job(line, row)
    if notes is not None:
        notes += noted.sentences


class JobReader:
    """Turns the rows of one input into jobs, and finds duplicate ids."""

    def __init__(
        self,
        shape: Shape,
        settings: Settings,
        *,
        priority: Priority = Priority.BULK,
        expires_at: float = 0.0,
        tenant: str = DEFAULT_TENANT,
        rules: Rules = NO_RULES,
        endpoint: Endpoint | None = None,
        expected_lines: int = 0,
    ) -> None:
        """`endpoint` None: that of the first row, or chat completions if it has none. `rules`: those of the tenant."""
        self.shape = shape
        self._settings = settings
        self._priority = priority
        self._expires_at = expires_at
        self._tenant = tenant
        self._rules = rules
        self._endpoint = endpoint
        self._router: Router | None = None
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
            reason = f"{self.shape.id_column or 'custom_id'} {custom_id!r} was already used on line {earlier}"
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
        if self.shape.system is not None:
            if endpoint != CHAT:
                raise RequestError(f"a system prompt does not apply to {endpoint}; omit --system", "system")
            body = {**body, "messages": [{"role": "system", "content": self.shape.system}, *body["messages"]]}
        if self._router is None:
            self._router = Router(self._settings, self.shape.route, endpoint=endpoint, rules=self._rules)
        return self._router.resolve(body, custom_id)

    def _with_params(self, body: dict[str, Any]) -> dict[str, Any]:
        """Add default parameters. Those of the line win; the output token limit has two names."""
        if not self.shape.params:
            return body
        said = {*body, *(OUTPUT_WORDS if not body.keys().isdisjoint(OUTPUT_WORDS) else ())}
        return {**{name: value for name, value in self.shape.params.items() if name not in said}, **body}

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


SMALLEST = 1024
FREE = 0
BITS_64 = (1 << 64) - 1


class FirstLines:
    """A hash table with open addressing in two flat arrays: 64 bits of an id's hash, and its line.

    Two ids with the same hash would count as duplicates. The hash is salted per process, so collisions cannot be
    provoked; by chance they affect one in about 30 million inputs of a million lines.
    """

    def __init__(self, expected: int = 0) -> None:
        self._count = 0
        self._make(1 << max(SMALLEST, expected * 3 // 2).bit_length())

    def first(self, id_: str, line: int) -> int:
        """The line on which the id first appeared: an earlier one, or this one, which is then recorded."""
        hashed = (hash(id_) & BITS_64) or 1
        slot = self._slot(hashed)
        if self._hashes[slot] == FREE:
            self._hashes[slot], self._lines[slot] = hashed, line
            self._count += 1
            if self._count * 3 > len(self._hashes) * 2:
                self._grow()
            return line
        return self._lines[slot]

    def _make(self, slots: int) -> None:
        self._mask = slots - 1
        self._hashes = array("Q", bytes(8 * slots))
        self._lines = array("I", bytes(4 * slots))

    def _slot(self, hashed: int) -> int:
        """The slot of this hash, or the free slot for it."""
        hashes, mask = self._hashes, self._mask
        slot = hashed & mask
        while hashes[slot] not in (FREE, hashed):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        known = zip(self._hashes, self._lines, strict=True)
        self._make(2 * len(self._hashes))
        for hashed, line in known:
            if hashed != FREE:
                slot = self._slot(hashed)
                self._hashes[slot], self._lines[slot] = hashed, line
