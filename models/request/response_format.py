"""`response_format`: what callers of chat completions ask of the form of an answer."""

from collections.abc import Mapping
from typing import Any


def schema_of(response_format: Any) -> dict[str, Any] | None:
    """The schema that a `response_format` carries; None when it asks for none."""
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return None
    wanted = response_format.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    return schema if isinstance(schema, dict) else None
