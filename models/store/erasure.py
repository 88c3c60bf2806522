"""Everything written by callers or providers that the ledger stores, and its removal.

What remains of a job is its identity, outcome, times, provider and cost, and the caller's labels: `custom_id`,
`metadata`, names of files, models and tenants, addresses of receivers.
"""

from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    Select,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models import disabled as setaside
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.store.sql import (
    NOW,
    SLICE,
    attempt,
    batch,
    credential,
    idempotency,
    job,
    job_input,
    result,
    run_line,
    webhook_delivery,
)

_ids: BindParameter[str] = bindparam("ids", expanding=True)

_prompt_bytes = case((job.c.bytes > ROW_BYTES, job.c.bytes - ROW_BYTES), else_=0)

_stored = func.coalesce(func.sum(_prompt_bytes + func.coalesce(job.c.answer_bytes, 0)), 0)

FORGET = (
    update(batch)
    .where(batch.c.id.in_(select(job.c.batch_id).where(job.c.id.in_(_ids))))
    .values(
        stored_bytes=batch.c.stored_bytes
        - select(_stored).where(job.c.batch_id == batch.c.id, job.c.id.in_(_ids)).scalar_subquery()
    ),
    delete(job_input).where(job_input.c.job_id.in_(_ids)),
    update(result).where(result.c.job_id.in_(_ids)).values(body=None, error=None),
    update(job).where(job.c.id.in_(_ids)).values(answer_bytes=0, bytes=job.c.bytes - _prompt_bytes),
)
"""Prompts and answers of some jobs; cost and outcome are kept."""

REMOVED = "removed with the content of its job"
"""Replaces text that may quote a prompt."""

FORGET_WORDS = (
    *FORGET,
    update(attempt).where(attempt.c.job_id.in_(_ids)).values(message=None),
    update(run_line).where(run_line.c.job_id.in_(_ids)).values(extra=None),
    update(job).where(job.c.id.in_(_ids)).values(progress=None, waiting=None),
)
"""All content of some jobs: requests, answers and providers' error messages."""

FORGET_SAID = (
    update(webhook_delivery)
    .where(webhook_delivery.c.object_id.in_(_ids), webhook_delivery.c.data.is_not(None))
    .values(data=literal('{"id":"') + webhook_delivery.c.object_id + literal(f'","reason":"{REMOVED}"}}'))
)
"""The reasons why jobs or batches were paused, as sent to receivers."""

FORGET_OF_BATCH = (
    update(batch)
    .where(batch.c.id.in_(_ids))
    .values(
        options=case((batch.c.input_file_id.is_(None), batch.c.options)),  # of a retry: provider and model names
        error=None,
        paused=None,
        blocked=None,
        waiting=None,
    )
)
"""What a caller specified for all lines of a batch, its line errors, and the reason for its pause."""

NAMED = select(idempotency.c.tenant, idempotency.c.key, idempotency.c.answer).where(
    idempotency.c.object_id.in_(_ids), idempotency.c.answer.is_not(None)
)
"""Stored responses to requests with an idempotency key that created several jobs, including one of these as the
first."""

NAMED_IN_VAIN = (
    select(idempotency.c.tenant, idempotency.c.key, idempotency.c.answer)
    .where(
        idempotency.c.object_id == literal_column("''"),
        idempotency.c.answer.is_not(None),
        ~idempotency.c.answer.contains(REMOVED, autoescape=True),
        idempotency.c.created_at <= NOW - bindparam("since_s"),
        idempotency.c.tenant.in_(bindparam("tenants", expanding=True)),
    )
    .limit(SLICE)
)
"""Stored responses to some tenants' requests with an idempotency key that created nothing."""

TENANTS_NAMED_IN_VAIN = (
    select(idempotency.c.tenant)
    .where(idempotency.c.object_id == literal_column("''"), idempotency.c.answer.is_not(None))
    .distinct()
)
"""The tenants that have such requests."""

SET_ANSWER = (
    update(idempotency)
    .where(idempotency.c.tenant == bindparam("owner"), idempotency.c.key == bindparam("name"))
    .values(answer=bindparam("said"), answer_bytes=bindparam("size"))
)
"""The response to a repeated request from now on."""

_forgotten_reason = (
    credential.c.job_id.is_not(None),
    credential.c.reason != setaside.FORGOTTEN,
    ~exists(select(job_input.c.job_id).where(job_input.c.job_id == credential.c.job_id)),
)

REASONS = select(credential.c.job_id).where(*_forgotten_reason).limit(1)

FORGET_REASONS = update(credential).where(*_forgotten_reason).values(reason=setaside.FORGOTTEN)
"""Providers' messages to jobs whose content was removed, where they are the reason for a disabled credential."""


async def shorten_answers(connection: AsyncConnection, which: Select[Any], asked: dict[str, Any]) -> None:
    """The ids of the jobs created are kept: the same request still creates no others."""
    for row in (await connection.execute(which, asked)).all():
        answer = orjson.loads(row.answer)
        for entry in answer["data"]:
            if entry["error"] is not None:
                entry["error"] |= {"message": REMOVED, "param": None}
        said = orjson.dumps(answer)
        words = {"owner": row.tenant, "name": row.key, "said": said.decode(), "size": len(said)}
        await connection.execute(SET_ANSWER, words)
