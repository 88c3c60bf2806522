"""Converts what a program submits (prompts, messages, bodies, lines, files) to rows and jobs."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from understudy.models.errors import suggestion
from understudy.models.jobs.submission import NewJob
from understudy.models.request.wire import RequestError, write_json
from understudy.models.routing.options import RouteOptions
from understudy.producer.ingest.input_rows import Row, row_of
from understudy.producer.ingest.intake import BadLine, JobReader

SLICE = 2_000
FILE_BYTES = 1_048_576

Request: TypeAlias = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A prompt, a list of chat messages, or a whole request: a chat-completion body or a line of a batch file."""

Requests: TypeAlias = Iterable[Request] | AsyncIterable[Request] | Path


class Routing(TypedDict, total=False):
    """Routing options. Those in the body of a request take precedence, but all data rules apply."""

    model: str | None
    """`provider/model`, the name of a chain, or a model listed by one provider. Default: the chain `default`."""
    chain: str | None
    """A configured chain."""
    fallbacks: Sequence[str | dict[str, Any]]
    """Models to fall back to."""
    order: str | None
    """`chain`, `cheapest` or `fastest`."""
    require: Mapping[str, Any] | None
    """Tags that a provider must have, such as `{"region": ["eu", "ch"], "zdr": True}`."""
    forbid: Mapping[str, Any] | None
    """Tag values that a provider must not have."""


def as_row(request: Request) -> Row:
    """Convert a request in any supported form to a row. Raises RequestError."""
    if isinstance(request, str):
        return Row({"prompt": request})
    if isinstance(request, Mapping):
        return row_of(dict(request))
    if isinstance(request, Sequence) and not isinstance(request, bytes):
        return Row({"messages": list(request)})
    raise RequestError("a request must be a prompt, a list of messages or an object")


def route_of(routing: Routing) -> tuple[RouteOptions, dict[str, Any]]:
    """The routing options, and those that were given. Raises RequestError."""
    for word in routing:
        if word not in Routing.__optional_keys__:
            raise RequestError(f"there is no argument '{word}'{suggestion(word, Routing.__optional_keys__)}", word)
    said = {word: value for word, value in routing.items() if value is not None}
    return RouteOptions.of(said), said


class Digest:
    """A hash of a batch submission: equal for the same requests in the same order, however their JSON is written."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._hash = hashlib.sha256(write_json(said, in_order=True))

    def add(self, row: Row) -> None:
        self._hash.update(
            b"\n" + write_json({"custom_id": row.custom_id, "url": row.endpoint, "body": row.body}, in_order=True)
        )

    def add_file(self, path: Path) -> None:
        with path.open("rb") as stream:
            while piece := stream.read(FILE_BYTES):
                self._hash.update(piece)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


async def slices_of(
    requests: Iterable[Request] | AsyncIterable[Request], reader: JobReader, digest: Digest | None
) -> AsyncGenerator[list[NewJob], None]:
    """Jobs in slices; each request is added to `digest`. Raises RequestError for the first invalid request, with its
    number from 1."""
    jobs: list[NewJob] = []
    number = 0
    async for request in _each(requests):
        number += 1
        try:
            row = as_row(request)
            if digest is not None:
                digest.add(row)
            job = reader.job(number, row)
        except RequestError as error:
            raise RequestError(f"request {number}: {error}", error.param, error.code) from None
        jobs.append(_good(job, "request"))
        if len(jobs) == SLICE:
            yield jobs
            jobs = []
    if jobs:
        yield jobs


async def slices_of_lines(lines: Iterator[NewJob | BadLine]) -> AsyncGenerator[list[NewJob], None]:
    """The same for a file, read in a thread."""
    while chunk := await asyncio.to_thread(lambda: list(islice(lines, SLICE))):
        yield [_good(line, "line") for line in chunk]


def _good(job: NewJob | BadLine, what: str) -> NewJob:
    if isinstance(job, BadLine):
        raise RequestError(f"{what} {job.line}: {job.reason}", job.param, job.code)
    return job


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
