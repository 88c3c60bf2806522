"""Parts that several shapes share."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

described = with_config(ConfigDict(use_attribute_docstrings=True))
"""Decorator of a TypedDict: the strings below its fields become their descriptions in the OpenAPI document."""


@described
class ErrorObject(TypedDict):
    """OpenAI's error."""

    message: str
    type: str
    param: str | None
    code: str | None


@described
class Page(TypedDict):
    """A page of a list, without its `data`."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool
    """Whether another page follows; its `after` is the `last_id` of this one."""


def page_of(data: Sequence[Any], *, has_more: bool) -> dict[str, Any]:
    """A `Page` with its data."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
