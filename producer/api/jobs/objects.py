"""Provider calls and pages as callers see them over HTTP; jobs are in `models.jobs.objects`, for webhooks as well."""

from typing import Any

from fastapi import Request

from understudy.models.config.settings import Settings
from understudy.models.jobs.objects import View, attempt_as_shown
from understudy.producer.api.access.locality import host_of


def root_of(request: Request, settings: Settings) -> str:
    """What comes before the path in links: as configured, or as the request came."""
    if settings.api.public_url is not None:
        return settings.api.public_url
    host = host_of(request)
    return "" if host is None else f"{request.scope['scheme']}://{host}"  # without a host a link is right, too


def attempt_object(row: View) -> dict[str, Any]:
    """A provider call."""
    return {
        "id": row["id"],
        "object": "attempt",
        "job_id": row["job_id"],
        "batch_id": row["batch_id"] or None,
        "no": row["no"],
        "step": row["step"],
        "key": row["key"],
        "started_at": row["started_at"],
        **attempt_as_shown(row),
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cost_usd": row["cost_usd"],
    }


def page_of(data: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A list of up to `limit`; `data` holds one more when there are more."""
    shown = data[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(data) > limit,
    }
