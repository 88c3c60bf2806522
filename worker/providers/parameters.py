"""The parameters of a chat completion other than its messages, for the protocols that are not OpenAI's.

Nothing is lost silently: a parameter that an adapter does not support is either advisory, and is dropped and listed, or
essential, and makes the step unusable for this request.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from understudy.worker.providers.base import CannotExpress, WireRequest
from understudy.worker.providers.messages import expect

ADVISORY = frozenset(
    {
        "frequency_penalty",
        "metadata",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "stream_options",
        "temperature",
        "top_k",
        "top_p",
        "user",
        "verbosity",
    }
)
"""They influence how an answer is made; an answer made without them still answers the request."""

_NO_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "stop": ([], ""),
    "stream": (False,),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""Values that match the default of every protocol."""

ToolChoiceMode = Literal["auto", "required", "none", "named"]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str | None
    schema: dict[str, Any]
    strict: bool


@dataclass(frozen=True, slots=True)
class ToolChoice:
    mode: ToolChoiceMode = "auto"
    name: str = ""


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


class Parameters:
    """Reads a request's parameters one by one and tracks those remaining."""

    def __init__(self, body: Mapping[str, Any], dropped: Iterable[str] = ()) -> None:
        """`dropped` begins with the parts of the messages that were omitted."""
        self._left = {
            name: value
            for name, value in body.items()
            if value is not None and name not in ("model", "messages") and value not in _NO_EFFECT.get(name, ())
        }
        self.dropped = list(dropped)

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Any:
        """The value, or None if absent."""
        return self._left.pop(name, None)

    def number(self, name: str) -> float | None:
        value = self.take(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise CannotExpress(f"{name} must be a number")
        return value

    def max_tokens(self) -> int | None:
        """The newer name wins: a request with both means the same by them."""
        older, newer = self.take("max_tokens"), self.take("max_completion_tokens")
        value = older if newer is None else newer
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise CannotExpress("max_completion_tokens must be an integer above 0")
        return value

    def stop(self) -> list[str]:
        value = self.take("stop")
        if value is None:
            return []
        sequences = [value] if isinstance(value, str) else expect(value, list, "stop")
        return [expect(sequence, str, "stop") for sequence in sequences]

    def drop(self, *names: str) -> None:
        """Omit these, and list those that the request has."""
        self.dropped += [name for name in names if self._left.pop(name, None) is not None]

    def request(self, protocol: str, path: str, headers: dict[str, str], wire: Mapping[str, Any]) -> WireRequest:
        """The request made of `wire` without what is empty. Drops the remaining advisory parameters; raises
        CannotExpress for any other that remains."""
        self.drop(*sorted(ADVISORY & self._left.keys()))
        if self._left:
            raise CannotExpress(f"{min(self._left)} cannot be expressed in the {protocol} protocol")
        content = orjson.dumps({name: value for name, value in wire.items() if value not in (None, [], {})})
        return WireRequest(path, headers, content, tuple(self.dropped))

    def tools(self) -> tuple[list[Tool], ToolChoice]:
        """The functions that the model may call, and whether it must."""
        value = expect(self.take("tools") or [], list, "tools")
        tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(value)]
        choice = self.take("tool_choice")
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            return _allowed(tools, choice)
        return tools, _choice(choice, tools)


def _tool(tool: Any, where: str) -> Tool:
    expect(tool, dict, where)
    if tool.get("type") != "function":
        raise CannotExpress(f"{where}.type must be function")
    function = expect(tool.get("function"), dict, f"{where}.function")
    unknown = function.keys() - {"name", "description", "parameters", "strict"}
    if unknown:
        raise CannotExpress(f"{where}.function.{min(unknown)} has no translation")
    schema = expect(function.get("parameters") or {}, dict, f"{where}.function.parameters")
    if not schema:
        schema = {"type": "object", "properties": {}}
    description = function.get("description")
    return Tool(
        name=expect(function.get("name"), str, f"{where}.function.name"),
        description=description if isinstance(description, str) and description else None,
        schema=schema,
        strict=function.get("strict") is True,
    )


def _choice(choice: Any, tools: list[Tool]) -> ToolChoice:
    if choice in ("auto", "none", "required"):
        return ToolChoice(choice)
    if choice is None:
        return ToolChoice()
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or name not in {tool.name for tool in tools}:
        raise CannotExpress("tool_choice does not name one of the tools")
    return ToolChoice("named", name)


def _allowed(tools: list[Tool], choice: dict[str, Any]) -> tuple[list[Tool], ToolChoice]:
    """Other protocols express a subset by offering only the subset."""
    allowed = expect(choice.get("allowed_tools"), dict, "tool_choice.allowed_tools")
    entries = expect(allowed.get("tools"), list, "tool_choice.allowed_tools.tools")
    names = {_choice(entry, tools).name for entry in entries}
    return [tool for tool in tools if tool.name in names], _choice(allowed.get("mode", "auto"), tools)
