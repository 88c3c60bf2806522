"""POST /v1/embeddings: one job through the queue, with the connection kept open until it ends."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from understudy.models.routing.chain import EMBEDDINGS
from understudy.models.state import Priority
from understudy.producer.api.access.auth import Submitter
from understudy.producer.api.bodies import documented, read_json
from understudy.producer.api.completions.synchronous import REFUSALS, accept_held, answer_when_ended
from understudy.producer.api.context import Api
from understudy.producer.api.errors import JSON
from understudy.producer.api.jobs.submission import job_of
from understudy.producer.request_fields import JobFields

router = APIRouter(prefix="/v1", tags=["embeddings"])

EXAMPLE: JsonDict = {"input": ["a walnut desk", "a brass lamp"]}


class EmbeddingsRequest(JobFields):
    """An embeddings body with additional fields. Fields not listed here are passed to the provider unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    input: str | list[Any] = Field(min_length=1)
    """A text, up to 2,048 texts, or tokens."""
    dimensions: int | None = Field(default=None, gt=0)
    """Length of the vectors, for models that support it."""
    encoding_format: str | None = Field(default=None, pattern="^(float|base64)$")
    """`float` (default) or `base64`."""


@router.post(
    "/embeddings",
    summary="Embeddings",
    response_class=Response,
    openapi_extra=documented(EmbeddingsRequest),
    responses={200: {"description": "The vectors", "content": {JSON: {}}}, **REFUSALS},
)
async def embed(request: Request, api: Api, caller: Submitter) -> Response:
    """Responds when the job has ended. If the caller disconnects, the job is cancelled."""
    document = await read_json(request, api.settings.api.max_body_bytes)
    job = await job_of(api, caller, document, priority=Priority.INTERACTIVE, endpoint=EMBEDDINGS)
    await accept_held(api, caller, job)
    return await answer_when_ended(request, api, caller, job.id)
