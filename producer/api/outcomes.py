"""How a job ended, as an HTTP answer: the same to who polled for it and to who was held."""

from collections.abc import Mapping
from typing import Any

import orjson

from models.job_objects import error_of, extra_fields_of
from models.state import JobState
from producer.api.context import Context
from producer.api.errors import ApiError

FINAL = {"X-Should-Retry": "false"}
"""What the OpenAI SDK reads before it tries again after an error status: this is the end of the job."""


async def outcome_of(api: Context, view: Mapping[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of a job that has ended. Raises ApiError (410) when its answer was pruned."""
    if view["state"] == JobState.SUCCEEDED:
        body = await api.store.answer(view["id"])
        if body is None:
            raise ApiError(410, f"the result of {view['id']} was pruned", code="result_pruned", headers=FINAL)
        return 200, body.encode(), {}
    status, error = error_of(view)
    fields = extra_fields_of(view)
    return status, orjson.dumps({"error": error, **({"extra_fields": fields} if fields else {})}), FINAL
