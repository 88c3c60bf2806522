"""`response_format`: its contents, how protocols without it emulate it, and whether an answer conforms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from understudy.models.schemas.json_schema import CHECK_S, TooCostly, Uncheckable, fault_in, is_schema
from understudy.models.schemas.process import NoJudge
from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Usage
from understudy.worker.providers.completion import Choice, created_at, unfinished
from understudy.worker.providers.messages import Conversation, Text, read_conversation
from understudy.worker.providers.parameters import Parameters, Tool, ToolChoice
from understudy.worker.providers.usage import usage_object

ANSWER_TOOL = "give_final_answer"
"""The tool that makes a model answer in a schema, where the protocol has no other way."""

JSON_INSTRUCTION = "Answer with one JSON object and nothing else."
"""How a protocol without a JSON mode emulates `json_object`; the answer is checked here."""

_FENCE = "```"
"""Models without a JSON mode tend to put their JSON between backticks."""


@dataclass(frozen=True, slots=True)
class Format:
    """`schema` is None for `json_object`: any object is valid."""

    schema: dict[str, Any] | None
    description: str | None = None

    def answer_tool(self) -> Tool:
        description = self.description or "Gives the final answer. Call it once, with the complete answer."
        return Tool(ANSWER_TOOL, description, self.schema or {"type": "object"}, strict=False)


def read_request(call: Call, *, has_json_mode: bool = False) -> tuple[Conversation, Parameters, Format | None]:
    """A chat completion's messages, other parameters, and the format requested for its answer; a protocol without a
    JSON mode gets an instruction instead. Raises CannotExpress."""
    conversation = read_conversation(call.body)
    parameters = Parameters(call.body, conversation.dropped)
    wanted = read_format(parameters.take("response_format"))
    if wanted and wanted.schema is None and not has_json_mode:
        conversation.system.append(Text(JSON_INSTRUCTION))
    return conversation, parameters, wanted


def read_format(response_format: Any) -> Format | None:
    """None for plain text. Raises CannotExpress for an unknown type or an invalid schema."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Format(None)
    wanted = response_format.get("json_schema") if kind == "json_schema" else None
    if not isinstance(wanted, dict) or not isinstance(wanted.get("schema"), dict):
        raise CannotExpress("response_format is neither text, json_object nor a json_schema with a schema")
    if not is_schema(wanted["schema"]):
        raise CannotExpress("response_format.json_schema.schema is not a JSON schema")
    description = wanted.get("description")
    return Format(wanted["schema"], description if isinstance(description, str) else None)


def format_of(body: Mapping[str, Any]) -> Format | None:
    """The format requested in a sent request."""
    try:
        return read_format(body.get("response_format"))
    except CannotExpress:
        return None


def with_answer_tool(wanted: Format, tools: list[Tool], choice: ToolChoice) -> tuple[list[Tool], ToolChoice]:
    """Tools and choice with which the model either calls one of the caller's tools or answers in the schema."""
    if wanted.schema is not None and wanted.schema.get("type") != "object":
        raise CannotExpress("response_format.json_schema.schema must have the type object at its root")
    if choice.mode in ("required", "named"):
        return tools, choice  # this turn ends with a tool call; the format applies to the answer after it
    if not tools or choice.mode == "none":
        return [*tools, wanted.answer_tool()], ToolChoice("named", ANSWER_TOOL)
    return [*tools, wanted.answer_tool()], ToolChoice("required")


def _unwrap_answer_tool(choice: Choice) -> None:
    """Turn the call of the answer tool into the content. Calls of the caller's own tools take precedence: the answer
    given with them did not know their results."""
    answers = [call for call in choice.tool_calls if call["function"]["name"] == ANSWER_TOOL]
    if not answers:
        return
    choice.tool_calls = [call for call in choice.tool_calls if call["function"]["name"] != ANSWER_TOOL]
    if not choice.tool_calls:
        choice.text = [answers[0]["function"]["arguments"]]
        if choice.finish_reason == "tool_calls":
            choice.finish_reason = "stop"


_REFUSED_IN_SCHEMAS = frozenset(
    {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "uniqueItems",
    }
)

_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose keys are the caller's names, not JSON Schema keywords."""

_PLAIN_VALUES = frozenset({"enum", "const", "default", "examples", "required", "dependentRequired"})
"""Keywords whose values are not schemas."""


def loosened(schema: Any) -> Any:
    """The schema in Claude's subset: without size limits, and with closed objects.

    The answer is checked against the original schema, so no guarantee is lost.
    """
    if isinstance(schema, list):
        return [loosened(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    loose: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _NAMED_SCHEMAS and isinstance(value, dict):
            loose[name] = {key: loosened(entry) for key, entry in value.items()}
        elif name in _PLAIN_VALUES:
            loose[name] = value
        elif name not in _REFUSED_IN_SCHEMAS:
            loose[name] = loosened(value)
    if loose.get("type") == "object":
        loose.setdefault("additionalProperties", False)
    return loose


def in_format(wanted: Format, text: str) -> str:
    """The text of a complete answer, without a fence. Raises BadAnswer if it does not conform to `response_format`."""
    text = _unfenced(text)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadAnswer("The answer is not JSON, as response_format requires.") from None
    fault = _fault({"type": "object"} if wanted.schema is None else wanted.schema, value)
    if fault is not None:
        raise BadAnswer(f"The answer violates the schema of response_format at {fault}.")
    return text


def _unfenced(text: str) -> str:
    fenced = text.strip()
    first, newline, rest = fenced.partition("\n")
    if not newline or first.strip() not in (_FENCE, f"{_FENCE}json") or not rest.endswith(_FENCE):
        return text
    return rest.removesuffix(_FENCE).strip()


def _fault(schema: dict[str, Any], value: Any) -> str | None:
    """A schema that cannot be checked, or takes too long, does not count against the answer."""
    try:
        return fault_in(value, schema, CHECK_S)
    except (Uncheckable, TooCostly, NoJudge):
        return None


def conclude(
    call: Call,
    choices: list[Choice],
    usage: Usage,
    headers: Mapping[str, str],
    *,
    answer_id: str,
    model: str,
    raw_usage: Any,
    fault: BadAnswer | None = None,
) -> Answer:
    """The chat completion, if all its choices are final and conform to the format; else BadAnswer, with the usage.

    `fault` is what is wrong with the answer as a whole.
    """
    completion = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created_at(headers),
        "model": model,
        "usage": usage_object(usage),
    }
    answer = Answer(completion, usage, model, raw_usage, choices[0].raw_finish or None if choices else None)
    wanted = format_of(call.body)
    try:
        if fault is not None:
            raise fault
        for choice in choices:
            _conclude(choice, wanted)
    except BadAnswer as bad:
        bad.answer = answer
        raise
    finally:
        completion["choices"] = [choice.as_openai(index) for index, choice in enumerate(choices)]
    return answer


def _conclude(choice: Choice, wanted: Format | None) -> None:
    _unwrap_answer_tool(choice)
    if choice.tool_calls and choice.finish_reason == "stop":
        choice.finish_reason = "tool_calls"
    if choice.finish_reason is None:
        raise unfinished(choice.raw_finish)
    if choice.finish_reason == "tool_calls" and not choice.tool_calls:
        raise BadAnswer("The answer ended with tool calls, but contains none.")
    if wanted is not None and choice.finish_reason == "stop" and not choice.refusal:
        choice.text = [in_format(wanted, "".join(choice.text))]
