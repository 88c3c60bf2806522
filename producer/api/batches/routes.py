"""OpenAI's Batch API, with additional routes for results so far, pausing and acknowledging."""

import hashlib
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.jobs.views import BatchView
from understudy.models.objects.batch import BatchList, BatchObject
from understudy.models.objects.shapes import page_of
from understudy.models.state import BatchState
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.store.files import FileRecord
from understudy.models.store.paging import Span, spans
from understudy.models.store.work.intake import NamedRequest
from understudy.producer.api.access.admission import admitted
from understudy.producer.api.access.auth import Caller, Reader, Submitter
from understudy.producer.api.batches.requests import BatchRequest, canonical, parse_request
from understudy.producer.api.bodies import documented, read_json
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import TEXT, ApiError, json_response, rejections
from understudy.producer.api.files.spooled_answers import Delivery, streamed
from understudy.producer.runs.output import rendered_line
from understudy.producer.status.documents import batch_documents

router = APIRouter(prefix="/v1/batches", tags=["batches"])

JSONL: Final = "application/jsonl"
NEXT_AFTER: Final = "Understudy-Next-After"
LINE_PREFIX: Final = "batch_req_"
MAX_KEY_CHARS: Final = 255
CANCELLED = frozenset({BatchState.CANCELLING, BatchState.CANCELLED})

ID_CHARS: Final = r"^[A-Za-z0-9_-]*$"

Limit = Annotated[int, Query(ge=1, le=100, description="Maximum number, newest first.")]
After = Annotated[str, Query(max_length=200, pattern=ID_CHARS, description="The id of the last item already seen.")]


@router.post(
    "",
    summary="Create a batch",
    openapi_extra=documented(BatchRequest),
    response_model=BatchObject,
    responses=rejections(400, 401, 403, 404, 413, 415, 422, 429, 503),
)
async def create(
    request: Request,
    api: Api,
    caller: Submitter,
    idempotency_key: Annotated[str | None, Header(max_length=MAX_KEY_CHARS)] = None,
    x_stainless_retry_count: Annotated[str | None, Header(max_length=10)] = None,
) -> Response:
    """Responds at once with a batch in `validating`; its lines are read and validated afterwards.

    A repeated request with the same `Idempotency-Key`, or a retry by the OpenAI SDK, creates nothing new.
    """
    document = await read_json(request, api.settings.api.max_body_bytes)
    digest = hashlib.sha256(canonical(document)).hexdigest()
    named = NamedRequest(idempotency_key, digest) if idempotency_key else None
    repeated = (x_stainless_retry_count or "0").strip("0") != ""
    batch_id = await api.store.intake.batch_made_before(caller.tenant, digest, named=named, repeated=repeated)
    if batch_id is None:
        rules = await api.rules.of(api.store, caller.tenant)
        asked = await api.schemas.run(caller.tenant, parse_request, document, api.settings, rules)
        batch_id = await _accept(api, caller, asked, digest, named, repeated)
    return await shown_batch(api, await own_batch(api, caller, batch_id))


@router.get("", summary="List batches", response_model=BatchList, responses=rejections(400, 401, 403, 503))
async def listing(api: Api, caller: Reader, limit: Limit = 20, after: After = "") -> Response:
    views = await api.store.batches.page(caller.tenant, limit + 1, after)
    shown = views[:limit]
    data = await batch_documents(api.store, api.redis, shown)
    return json_response(page_of(data, has_more=len(views) > limit))


@router.get("/{batch_id}", summary="A batch", response_model=BatchObject, responses=rejections(400, 401, 403, 404, 503))
async def retrieve(api: Api, caller: Reader, batch_id: str) -> Response:
    return await shown_batch(api, await own_batch(api, caller, batch_id))


@router.post(
    "/{batch_id}/cancel",
    summary="Cancel a batch",
    response_model=BatchObject,
    responses=rejections(400, 401, 403, 404, 503),
)
async def cancel(api: Api, caller: Submitter, batch_id: str) -> Response:
    """Finished lines keep their results; calls in flight are aborted. Cancelling again has no effect."""
    await own_batch(api, caller, batch_id)
    if not await api.store.filling.cancel(batch_id):
        await api.store.batch_lifecycle.cancel(batch_id)
    view = await own_batch(api, caller, batch_id)
    if view.state not in CANCELLED:
        raise has_ended(view, "cancelled")
    await api.store.audit.record_repeated(caller.actor, caller.tenant, "batch.cancel", batch_id)
    api.fill_soon()
    return await shown_batch(api, view)


@router.post(
    "/{batch_id}/pause",
    summary="Pause a batch",
    response_model=BatchObject,
    responses=rejections(400, 401, 403, 404, 503),
)
async def pause(api: Api, caller: Submitter, batch_id: str) -> Response:
    """No further lines start; calls in flight continue."""
    view = await own_batch(api, caller, batch_id)
    if not await api.store.batch_lifecycle.pause(batch_id, "paused by its owner"):
        raise has_ended(view, "paused")
    await api.store.audit.record_repeated(caller.actor, caller.tenant, "batch.pause", batch_id)
    return await shown_batch(api, await own_batch(api, caller, batch_id))


@router.post(
    "/{batch_id}/ack",
    summary="Acknowledge that you have received the results of a batch",
    response_model=BatchObject,
    responses=rejections(400, 401, 403, 404, 409, 503),
)
async def acknowledge(api: Api, caller: Submitter, batch_id: str) -> Response:
    """With `store_content = "until_delivered"`, its prompts, answers and files are deleted an hour later."""
    view = await own_batch(api, caller, batch_id)
    if not await api.store.content.acknowledge("batch", caller.tenant, batch_id):
        raise ApiError(409, f"batch {batch_id} is {view.state}; it has not ended yet", code="not_ended")
    await api.store.audit.record_repeated(caller.actor, caller.tenant, "batch.ack", batch_id)
    return await shown_batch(api, view)


@router.get(
    "/{batch_id}/results",
    summary="The results so far",
    response_class=Response,
    responses={200: {"content": {JSONL: TEXT}}, **rejections(400, 401, 403, 404, 429, 503)},
)
async def results(
    api: Api,
    caller: Reader,
    batch_id: str,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Maximum number of lines.")] = 1_000,
    after: Annotated[str, Query(max_length=200, pattern=ID_CHARS, description="The `id` of the last line read.")] = "",
) -> Response:
    """Lines as in the output and error files, in the order of the input, even while others are still running.

    Lines finish in any order, so a line that finishes later may come before `after`. While the batch is running, start
    over to see all lines. The header `Understudy-Next-After` is set if there may be more lines after this page.
    """
    await own_batch(api, caller, batch_id)
    begins = after.removeprefix(LINE_PREFIX)
    sizes = await api.store.outputs.sizes(batch_id, begins, limit)
    headers = {NEXT_AFTER: LINE_PREFIX + sizes[-1][0]} if len(sizes) == limit else {}
    return await streamed(_lines(api, caller, batch_id, sizes, begins), headers, JSONL)


async def _lines(
    api: Context, caller: Caller, batch_id: str, sizes: Sequence[tuple[str, int]], after: str
) -> AsyncGenerator[bytes, None]:
    """The lines of these jobs, in pieces."""
    delivery = Delivery(api, caller.tenant)
    wanted = {job_id for job_id, _ in sizes}
    for span in spans(sizes, after):
        page = partial(_page, api, batch_id, span, wanted)
        async for piece in delivery.pieces(page, span.size):
            yield piece


async def _page(api: Context, batch_id: str, span: Span, wanted: Collection[str]) -> Iterable[bytes]:
    """The lines of a page, without those that finished since."""
    return [rendered_line(row) for row in await api.store.outputs.of_batch_in(batch_id, span) if row.job_id in wanted]


async def _accept(
    api: Context, caller: Caller, asked: BatchRequest, digest: str, named: NamedRequest | None, repeated: bool
) -> str:
    file = await _input(api, caller, asked.input_file_id)
    new, lines = await _new_batch(api, caller, asked, digest), file.lines
    async with admitted(api, caller, lines, (file.bytes or 0) + ROW_BYTES * lines, batches=1) as taken:
        batch_id = await api.store.intake.accept_batch(new, named, repeated=repeated)
        taken.jobs = lines if batch_id == new.id else 0
    api.fill_soon()
    return batch_id


async def _input(api: Context, caller: Caller, file_id: str) -> FileRecord:
    """The input file. Raises ApiError."""
    file = await api.store.files.view(caller.tenant, file_id)
    if file is None:
        raise ApiError(404, f"there is no file {file_id}", param="input_file_id", code="not_found")
    if file.purpose != "batch":
        raise ApiError(400, "the file must have been uploaded with purpose 'batch'", param="input_file_id")
    most = api.settings.api.max_batch_lines
    if file.lines > most:
        raise ApiError(
            400,
            f"the file has {file.lines:,} lines; the limit for a batch is {most:,}: split it",
            param="input_file_id",
            code="too_many_lines",
        )
    return file


async def _new_batch(api: Context, caller: Caller, asked: BatchRequest, digest: str) -> NewBatch:
    return NewBatch(
        new_id("batch"),
        priority=asked.queue,
        tenant=caller.tenant,
        endpoint=asked.endpoint,
        expires_at=await api.store.now() + asked.window_s,
        source=asked.input_file_id,
        metadata=asked.metadata or {},
        input_file_id=asked.input_file_id,
        completion_window=asked.completion_window,
        options=asked.route,
        callback_url=asked.webhook_url,
        output_expires_s=asked.output_expires_after.seconds if asked.output_expires_after else None,
        request_hash=digest,
        budget_usd=asked.budget_usd,
        weight=asked.weight,
    )


async def own_batch(api: Context, caller: Caller, batch_id: str) -> BatchView:
    view = await api.store.batches.view(batch_id) if batch_id.isprintable() else None
    if view is None or view.tenant != caller.tenant:
        raise ApiError(404, f"there is no batch {batch_id[:80]}", param="batch_id", code="not_found")
    return view


def has_ended(view: BatchView, what: str) -> ApiError:
    return ApiError(400, f"batch {view.id} is {view.state}; it can no longer be {what}", code="batch_ended")


async def shown_batch(api: Context, view: BatchView) -> Response:
    (document,) = await batch_documents(api.store, api.redis, [view])
    return json_response(document)
