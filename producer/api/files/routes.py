"""OpenAI's files: uploads as input of batches, and the results of batches."""

from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import Annotated, Any, Literal, cast, get_args
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from understudy.models.ids import new_id
from understudy.models.objects.shapes import Page, page_of
from understudy.models.request.wire import RequestError
from understudy.models.store.files import FileRecord
from understudy.models.store.paging import Span
from understudy.producer.api.access.admission import admitted_bytes
from understudy.producer.api.access.auth import Caller, Reader, Submitter
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError, json_response, rejections
from understudy.producer.api.files.spooled_answers import Delivery, streamed
from understudy.producer.api.files.upload import KIND, LONGEST_S, SHORTEST_S, Upload
from understudy.producer.runs.output import rendered_line, rendered_size

router = APIRouter(prefix="/v1/files", tags=["files"])

Purpose = Literal["batch", "batch_output"]
PURPOSES = get_args(Purpose)
LINES = "application/jsonl"
LIST_LIMIT = 10_000
NAME_LIMIT = 200


class FileObject(BaseModel):
    """OpenAI's file object. Times are Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    expires_at: int | None


class FileList(Page):
    data: list[FileObject]


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            KIND: {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    summary="Upload the input of a batch",
    response_model=FileObject,
    responses=rejections(400, 401, 403, 413, 415, 429, 503),
    openapi_extra=UPLOAD_BODY,
)
async def upload(request: Request, api: Api, caller: Submitter) -> Response:
    """The body is multipart, as in OpenAI's API: `file` and `purpose`, in any order. The file is stored completely or
    not at all."""
    body = Upload(request, api.settings.api.max_file_bytes)
    file_id = new_id("file")
    size, lines = await api.blobs.put(file_id, admitted_bytes(api, caller, body.chunks(), body.declared))
    try:
        record = await api.store.files.add(file_id, caller.tenant, body.filename or "", size, lines, body.lives_s)
    except BaseException:
        await api.blobs.delete(file_id)
        raise
    return json_response(_shown(record, size))


@router.get(
    "",
    summary="List files, newest first",
    response_model=FileList,
    responses=rejections(400, 401, 403, 503),
)
async def list_files(
    api: Api,
    caller: Reader,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=LIST_LIMIT)] = LIST_LIMIT,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """`after`: the last id of the previous page, even if it was deleted since."""
    purposes = [each for each in PURPOSES if purpose in (None, each)]
    if after is not None and not _may_be_id(after):
        raise _no_cursor()
    found = await api.store.files.page(caller.tenant, purposes, limit + 1, after, order == "asc")
    if found is None:
        raise _no_cursor()
    data = [_shown(each, await _size(api, each)) for each in found[:limit]]
    return json_response(page_of(data, has_more=len(found) > limit))


@router.get(
    "/{file_id}",
    summary="Retrieve a file",
    response_model=FileObject,
    responses=rejections(400, 401, 403, 404, 503),
)
async def retrieve(file_id: str, api: Api, caller: Reader) -> Response:
    record = await _found(api, caller, file_id)
    return json_response(_shown(record, await _size(api, record)))


@router.get(
    "/{file_id}/content",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={
        200: {"content": {LINES: {"schema": {"type": "string", "format": "binary"}}}},
        **rejections(400, 401, 403, 404, 429, 503),
    },
)
async def content(file_id: str, api: Api, caller: Reader) -> Response:
    """Output and error files of batches are generated while they are sent, with lines in no particular order."""
    record = await _found(api, caller, file_id)
    chunks = api.blobs.read(file_id) if record.part is None else _lines(api, record)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(record.filename, safe='')}"}
    if record.bytes is not None:
        headers["Content-Length"] = str(record.bytes)
    return await streamed(chunks, headers, LINES)


@router.delete(
    "/{file_id}",
    summary="Delete a file; for an output file, also its prompts and answers",
    response_model=FileDeleted,
    responses=rejections(400, 401, 403, 404, 409, 503),
)
async def delete(file_id: str, api: Api, caller: Submitter) -> Response:
    """The file disappears at once; its content is removed right after, in slices."""
    if not _may_be_id(file_id) or not await api.store.files.delete(caller.tenant, file_id):
        raise _unknown(file_id)
    await api.store.audit.record(caller.actor, caller.tenant, "file.delete", file_id)
    api.deleted_files.set()
    return json_response(FileDeleted(id=file_id).model_dump())


async def _found(api: Context, caller: Caller, file_id: str) -> FileRecord:
    record = await api.store.files.view(caller.tenant, file_id) if _may_be_id(file_id) else None
    if record is None:
        raise _unknown(file_id)
    return record


async def _lines(api: Context, record: FileRecord) -> AsyncGenerator[bytes, None]:
    """The lines of an output or error file, in pieces; its length is recorded after the first complete read."""
    assert record.batch_id is not None and record.part is not None
    size, delivery = 0, Delivery(api, record.tenant)
    async for span in api.store.outputs.part_spans(record.batch_id, record.part):
        page = partial(_page, api, record.batch_id, record.part, span)
        async for piece in delivery.pieces(page, span.size):
            size += len(piece)
            yield piece
    if record.bytes is None:
        await api.store.files.set_bytes(record.id, size)


async def _page(api: Context, batch_id: str, part: str, span: Span) -> Iterable[bytes]:
    return map(rendered_line, await api.store.outputs.part_rows(batch_id, part, span))


async def _size(api: Context, record: FileRecord) -> int:
    """The size of a file; computed once, without reading the answers."""
    if record.bytes is not None:
        return record.bytes
    assert record.batch_id is not None and record.part is not None
    size = 0
    async for row, answer_bytes in api.store.outputs.part_sizes(record.batch_id, record.part):
        size += rendered_size(row, answer_bytes)
    await api.store.files.set_bytes(record.id, size)
    return size


def _shown(record: FileRecord, size: int) -> dict[str, Any]:
    return FileObject(
        id=record.id,
        bytes=size,
        created_at=int(record.created_at),
        filename=record.filename,
        purpose=cast(Purpose, record.purpose),
        expires_at=None if record.expires_at is None else int(record.expires_at),
    ).model_dump()


def _may_be_id(given: str) -> bool:
    return len(given) <= NAME_LIMIT and given.isascii() and given.replace("_", "").replace("-", "").isalnum()


def _unknown(file_id: str) -> ApiError:
    shown = f" {file_id}" if _may_be_id(file_id) else " of that name"
    return ApiError(404, f"there is no file{shown}", param="file_id", code="not_found")


def _no_cursor() -> RequestError:
    return RequestError("'after' is not the id of a file: use the 'last_id' of a page", "after")
