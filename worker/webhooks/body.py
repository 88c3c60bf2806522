"""The body of a webhook, built from the ledger when it is sent: ended jobs and batches do not change.

    {"id": "evt_…", "object": "event", "type": "job.succeeded", "created_at": 1795000000,
     "timestamp": "2026-11-22T20:00:00Z", "data": {…}}

A job's `data` is the job as shown by the HTTP API, with its whole `result`; a result over 256 kB is only linked by
`result_url`. A batch's `data` is its id, as OpenAI sends it; for a batch that waits for a person also the `reason`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from understudy.models.objects.job import JobObject, View, job_object, with_result
from understudy.models.routing.chain import Chain
from understudy.models.state import JobState
from understudy.models.webhooks import Delivery

MAX_INLINE_BYTES = 256 * 1024


def event_body(delivery: Delivery, data: Mapping[str, Any]) -> bytes:
    """The body of every attempt of a delivery."""
    event = {
        "id": delivery.id,
        "object": "event",
        "type": delivery.event,
        "created_at": int(delivery.created_at),
        "timestamp": datetime.fromtimestamp(int(delivery.created_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": data,
    }
    return orjson.dumps(event)


def job_data(view: View, chain: Chain, answer: str | None, public_url: str | None) -> JobObject:
    """A job with its result, or with where its result is."""
    fits = view["state"] == JobState.SUCCEEDED and answer is not None and len(answer.encode()) <= MAX_INLINE_BYTES
    return with_result(job_object(view, chain, public_url or ""), answer if fits else None)
