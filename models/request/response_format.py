"""`response_format`: the form that callers of chat completions request for an answer."""

from collections.abc import Mapping
from typing import Any


def schema_of(response_format: Any) -> dict[str, Any] | None:
    """The schema in a `response_format`; None without one."""
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return None
    wanted = response_format.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    return schema if isinstance(schema, dict) else None
