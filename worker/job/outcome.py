"""Builds what is written when a job's run ends: the result, or its return to the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from understudy.models.failure import FailureClass
from understudy.models.jobs.error_object import error_object
from understudy.models.jobs.execution import AttemptRecord, ResultRecord, Settled, StartedJob
from understudy.models.jobs.wait_reasons import GIVEN_BACK, Waiting
from understudy.models.routing.chain import Chain
from understudy.models.state import JobState
from understudy.worker.job.progress import Progress, first_error, in_order, left_out, skipped, steps_with_errors
from understudy.worker.limits.grants import Deployment
from understudy.worker.providers.base import Answer

NOTHING_TRIED: Mapping[str, Any] = {
    "class": FailureClass.UNKNOWN,
    "message": "no step of the chain could be tried",
    "status": None,
    "body": None,
}

UNWRITABLE = ResultRecord(
    None,
    None,
    {"code": FailureClass.UNKNOWN, "message": "internal error: the ledger cannot store its outcome"},
    failure=FailureClass.UNKNOWN,
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A successful call, and its step. `cost_usd` None: no known price. `written` is the completion as JSON, removed
    by the code that stores it."""

    answer: Answer
    written: list[bytes]
    deployment: Deployment
    dropped: tuple[str, ...]
    latency_ms: int
    cost_usd: float | None


def succeeded(
    job: StartedJob, chain: Chain, progress: Progress, first: int, attempts: list[AttemptRecord], answered: Answered
) -> Settled:
    """`first` is the index of the primary step: the first that may serve the job."""
    answer, deployment = answered.answer, answered.deployment
    order = in_order(chain, progress)
    place = order.index(progress.step) - order.index(first)
    extra = {
        "provider": deployment.provider,
        "model_requested": str(chain.steps[first]),
        "model_used": answer.model,
        "key": deployment.key,
        "latency_ms": answered.latency_ms,
        "fallback_index": place,
        "cost_usd": answered.cost_usd,
        "attempts": progress.attempts,
        "raw_usage": answer.raw_usage,
        "raw_finish_reason": answer.raw_finish,
    }
    if answered.dropped:
        extra["dropped_params"] = answered.dropped
    if without := skipped(progress):
        extra["skipped_steps"] = {str(chain.steps[step]): reason for step, reason in without.items()}
    result = ResultRecord(
        status_code=200,
        body=_with_extra_fields(answered.written, extra),
        provider=deployment.provider,
        model=deployment.model,
        key=deployment.key,
        fallback_index=place,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        cost_usd=answered.cost_usd or 0.0,
        unpriced=answered.cost_usd is None,
        latency_ms=answered.latency_ms,
    )
    return Settled(job.id, job.batch_id, job.claim_no, JobState.SUCCEEDED, attempts, result, tenant=job.tenant)


def failed(job: StartedJob, chain: Chain, progress: Progress, attempts: list[AttemptRecord]) -> Settled:
    """The first step's error is the job's, in OpenAI's form whichever provider failed; its message includes every
    step's message."""
    step, error = first_error(progress) or (None, _nothing_tried(progress))
    name = None if step is None else str(chain.steps[step])
    reasons = {str(chain.steps[index]): reason for index, reason in left_out(progress).items()}
    extra = {
        "failure": error["class"],
        "step": name,
        "attempts": progress.attempts,
        "skipped_steps": reasons,
    }
    message, status = _words_of_each_step(chain, progress) or error["message"], error["status"]
    if status is None or status < 400:  # no response, or a 200 without an answer, which must not look like success
        result = ResultRecord(None, None, {"code": error["class"], "message": message, "extra_fields": extra})
    else:
        shown = {"error": error_object(status, error["body"], message, error["class"]), "extra_fields": extra}
        result = ResultRecord(status, _json(shown))
    result.failure, result.step = FailureClass(error["class"]), name
    return Settled(job.id, job.batch_id, job.claim_no, JobState.FAILED, attempts, result, tenant=job.tenant)


def _words_of_each_step(chain: Chain, progress: Progress) -> str:
    """Each step's message, in order; without its name if there is only one."""
    said = {str(chain.steps[step]): progress.errors[step]["message"] for step in steps_with_errors(progress)}
    return "; ".join(said.values() if len(chain.steps) == 1 else (f"{step}: {words}" for step, words in said.items()))


def put_back(
    job: StartedJob, attempts: Sequence[AttemptRecord], progress: Progress, until: float, waiting: Waiting | None
) -> Settled:
    return Settled(
        job.id,
        job.batch_id,
        job.claim_no,
        JobState.QUEUED,
        list(attempts),
        not_before=until,
        progress=progress.to_dict(),
        waiting=waiting,
        tenant=job.tenant,
    )


def stopped(job: StartedJob, attempts: list[AttemptRecord], progress: Progress, state: JobState) -> Settled:
    """Cancelled by its owner, or returned by a draining worker: due at once, nothing spent."""
    if state is JobState.QUEUED:
        return put_back(job, attempts, progress, 0.0, GIVEN_BACK)
    return Settled(job.id, job.batch_id, job.claim_no, state, attempts, tenant=job.tenant)


def expired(job: StartedJob, attempts: list[AttemptRecord]) -> Settled:
    """Its deadline passed while it ran or waited in its slot."""
    return Settled(job.id, job.batch_id, job.claim_no, JobState.EXPIRED, attempts, tenant=job.tenant)


def defect(job: StartedJob, progress: Progress, attempts: list[AttemptRecord], name: str) -> Settled:
    """Stopped by a bug of ours: a retry would only repeat it."""
    message = f"internal error: {name}; see the worker's log"
    error = {"code": FailureClass.UNKNOWN, "message": message, "extra_fields": {"attempts": progress.attempts}}
    result = ResultRecord(None, None, error, failure=FailureClass.UNKNOWN)
    return Settled(job.id, job.batch_id, job.claim_no, JobState.FAILED, attempts, result, tenant=job.tenant)


def unwritable(settled: Settled) -> Settled:
    """Replaces an outcome whose content the ledger rejects."""
    return Settled(settled.job_id, settled.batch_id, settled.claim_no, JobState.FAILED, result=UNWRITABLE)


def _nothing_tried(progress: Progress) -> Mapping[str, Any]:
    """No step could be tried: the request fits none, or data rules forbid those that it fits."""
    reasons = skipped(progress)
    if not reasons:
        return NOTHING_TRIED
    by_rule = any(passed.rule for passed in progress.passed.values())
    cls = FailureClass.REGION if by_rule else FailureClass.BAD_REQUEST
    message = f"no step of the chain can serve this request: {'; '.join(reasons.values())}"
    return {**NOTHING_TRIED, "class": cls, "message": message}


def _with_extra_fields(written: list[bytes], extra: Mapping[str, Any]) -> str:
    """A completion that is not parsed for this: it may be large, and must not be in memory more often than
    necessary."""
    completion = written.pop()
    whole = b"".join((memoryview(completion)[:-1], b',"extra_fields":', orjson.dumps(extra), b"}"))
    del completion
    return whole.decode()


def _json(document: Mapping[str, Any]) -> str:
    return orjson.dumps(document).decode()
