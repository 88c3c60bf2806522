"""What a webhook says, made from the ledger when it is sent: what has ended does not change.

    {"id": "evt_…", "object": "event", "type": "job.succeeded", "created_at": 1795000000,
     "timestamp": "2026-11-22T20:00:00Z", "data": {…}}

A job's `data` is the job with its whole result; the result of more than 256 kB is left to its URL. A batch's `data` is
its id, as OpenAI sends it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from models.webhooks import Delivery, Material

MAX_INLINE_BYTES = 256 * 1024


def event_body(delivery: Delivery, material: Material, public_url: str | None) -> bytes:
    """The body of every try of a delivery."""
    about_job = material.job is not None
    event = {
        "id": delivery.id,
        "object": "event",
        "type": delivery.event,
        "created_at": int(delivery.created_at),
        "timestamp": datetime.fromtimestamp(int(delivery.created_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "data": _job(material.job, material.result, public_url) if about_job else {"id": delivery.object_id},
    }
    return orjson.dumps(event)


def _job(row: Mapping[str, Any] | None, record: Mapping[str, Any] | None, public_url: str | None) -> dict[str, Any]:
    assert row is not None
    answer = record["body"] if record is not None else None
    fits = answer is None or len(answer.encode()) <= MAX_INLINE_BYTES
    return {
        "id": row["id"],
        "object": "job",
        "status": row["state"],
        "custom_id": row["custom_id"],
        "created_at": int(row["created_at"]),
        "started_at": _whole(row["started_at"]),
        "ended_at": _whole(row["ended_at"]),
        "expires_at": int(row["expires_at"]),
        "metadata": orjson.loads(row["note"]) if row["note"] else {},
        "attempts": row["attempts"],
        "provider": record and record["provider"],
        "model": record and record["model"],
        "cost_usd": record["cost_usd"] if record else 0.0,
        "status_code": record and record["status_code"],
        "result": orjson.Fragment(answer) if answer is not None and fits else None,
        "result_url": f"{public_url or ''}/v1/jobs/{row['id']}/result",
        "error": orjson.Fragment(record["error"]) if record and record["error"] else None,
    }


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)
