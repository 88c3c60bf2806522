"""What the shapes have in common."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

described = with_config(ConfigDict(use_attribute_docstrings=True))
"""Of a TypedDict: the texts below its fields are their descriptions in the OpenAPI document."""


@described
class ErrorObject(TypedDict):
    """OpenAI's error."""

    message: str
    type: str
    param: str | None
    code: str | None


def page_of(data: Sequence[Any], limit: int) -> Any:
    """A list of up to `limit`; `data` holds one more when there are more."""
    shown = list(data[:limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(data) > limit,
    }
