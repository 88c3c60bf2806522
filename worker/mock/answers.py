"""The content of answers, before it is encoded for a protocol. Equal requests get equal answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from understudy.worker.mock.calls import ReceivedCall, Tool
from understudy.worker.mock.config import Answers
from understudy.worker.mock.rules import draw, roll

BYTES_PER_TOKEN = 4

_STRINGS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1S",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_DEEPEST = 40

Finish = Literal["stop", "length", "tool_calls", "refusal"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """`input_tokens` includes the cached ones, `output_tokens` the reasoning ones. One text per choice."""

    id: str  # hex, without the prefix of any protocol
    texts: tuple[str, ...]
    tool_call: ToolCall | None
    finish: Finish
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


def compose(call: ReceivedCall, answers: Answers, seed: int) -> Reply:
    """The answer to a request; `tool_call` and a JSON schema take precedence over the text template."""
    digest = call.digest.hex()
    tool_call = _tool_call(call, answers, digest)
    finish: Finish = answers.finish or ("tool_calls" if tool_call else "stop")
    if finish == "refusal":
        tool_call, texts = None, ["This cannot be answered."] * call.n
    elif tool_call:
        texts = [""] * call.n
    else:
        texts = [_text(call, answers, digest, seed, choice) for choice in range(call.n)]
    written = sum(map(_tokens, texts)) + (_tokens(orjson.dumps(tool_call.arguments).decode()) + 5 if tool_call else 0)
    room = call.max_tokens
    if room is not None and not tool_call and max(map(_tokens, texts)) + answers.reasoning_tokens > room:
        texts = [text[: max(room - answers.reasoning_tokens, 0) * BYTES_PER_TOKEN] for text in texts]
        finish, written = "length", sum(map(_tokens, texts))
    return Reply(
        id=digest[:24],
        texts=tuple(texts),
        tool_call=tool_call,
        finish=finish,
        input_tokens=call.input_tokens,
        output_tokens=written + answers.reasoning_tokens,
        cached_tokens=int(call.input_tokens * answers.cached_share),
        reasoning_tokens=answers.reasoning_tokens,
    )


def _tokens(text: str) -> int:
    return -(-len(text) // BYTES_PER_TOKEN)


def _tool_call(call: ReceivedCall, answers: Answers, digest: str) -> ToolCall | None:
    forced = call.tool_choice == "required" or call.tool_choice.startswith("=")
    wanted = answers.tools == "always" or (answers.tools == "when_required" and forced)
    if not call.tools or not wanted or call.tool_choice == "none":
        return None
    tool = _chosen(call)
    arguments = instance(tool.schema, digest[:12]) if tool.schema else {}
    return ToolCall(digest[:20], tool.name, arguments if isinstance(arguments, dict) else {})


def _chosen(call: ReceivedCall) -> Tool:
    name = call.tool_choice.removeprefix("=")
    return next((tool for tool in call.tools if tool.name == name), call.tools[0])


def _text(call: ReceivedCall, answers: Answers, digest: str, seed: int, choice: int) -> str:
    short = digest[:12] if choice == 0 else f"{digest[:12]}-{choice}"
    if call.schema is not None and answers.heeds_format:
        value = instance(call.schema, short) if call.schema else {"answer": short}
        return orjson.dumps(value).decode()
    # Not str.format: a brace in a prompt or in the template's own text must stay as it is.
    fields = {"{hash}": short, "{model}": call.model, "{provider}": call.provider, "{prompt}": call.prompt}
    text = answers.text
    for field, value in fields.items():
        text = text.replace(field, value)
    if answers.output_tokens is None:
        return text
    tokens = round(draw(answers.output_tokens, roll(seed, "tokens", call.provider, call.model, digest, choice)))
    return _of_length(text, max(tokens, 1) * BYTES_PER_TOKEN, digest)


def _of_length(text: str, length: int, digest: str) -> str:
    filler = " ".join(digest[start : start + 7] for start in range(0, len(digest), 7)) + " "
    missing = length - len(text) - 1
    return text[:length] if missing < 0 else f"{text} {filler * (missing // len(filler) + 1)}"[:length]


def instance(schema: Mapping[str, Any], text: str) -> Any:
    """The smallest value of a JSON schema, with `text` where any string is valid, so that an answer can be validated.

    `pattern` and `not` are ignored.
    """
    return _value(schema, schema, text, 0)


def _value(schema: Any, root: Mapping[str, Any], text: str, depth: int) -> Any:
    if depth > _DEEPEST or not isinstance(schema, Mapping):
        return None
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, text, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "allOf" in schema:
        return _value(_merged(schema, root), root, text, depth + 1)
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            rest = {name: value for name, value in schema.items() if name != choice}
            return _value(_merged({**rest, "allOf": [schema[choice][0]]}, root), root, text, depth + 1)
    return _of_type(_type(schema), schema, root, text, depth)


def _type(schema: Mapping[str, Any]) -> str:
    declared = schema.get("type")
    if isinstance(declared, list):
        declared = next((each for each in declared if str(each).lower() != "null"), "null")
    if declared is None:
        declared = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(declared).lower()  # Gemini's own dialect writes STRING


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], text: str, depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            needed = schema.get("required", list(properties) if depth == 0 else [])
            return {name: _value(properties.get(name, {}), root, text, depth + 1) for name in needed}
        case "array":
            leading = [_value(each, root, text, depth + 1) for each in schema.get("prefixItems") or ()]
            missing = max(int(schema.get("minItems", 0)) - len(leading), 0)
            return leading + [_value(schema.get("items", {}), root, text, depth + 1) for _ in range(missing)]
        case "number" | "integer":
            return _number(schema, whole=kind == "integer")
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return _string(schema, text)


def _string(schema: Mapping[str, Any], text: str) -> str:
    value = _STRINGS.get(str(schema.get("format")), text)
    return value.ljust(int(schema.get("minLength", 0)), ".")[: schema.get("maxLength")]


def _number(schema: Mapping[str, Any], whole: bool) -> float:
    low = schema.get("minimum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + (1 if whole else 0.5)
    high = schema.get("maximum")
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - (1 if whole else 0.5)
    value = 0.0 if low is None else max(low, 0.0)
    if high is not None and value > high:
        value = high
    step = schema.get("multipleOf")
    if step:
        value = -(-value // step) * step
    return int(-(-value // 1)) if whole else value


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """Only references within the document (`#/$defs/Name`) are supported, as in structured outputs."""
    found: Any = root
    for part in reference.lstrip("#/").split("/"):
        found = found[part] if part else found
    return found


def _merged(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its `allOf` members folded in."""
    result = {name: value for name, value in schema.items() if name != "allOf"}
    for member in schema["allOf"]:
        part = _resolve(member["$ref"], root) if "$ref" in member else member
        if "properties" in part and "properties" in result:
            part = {**part, "properties": {**result["properties"], **part["properties"]}}
        if "required" in part and "required" in result:
            part = {**part, "required": [*result["required"], *part["required"]]}
        result.update(part)
    return result
