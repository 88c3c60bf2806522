"""A small instance of a JSON schema, so that an answer to `response_format: json_schema` can be validated."""

from collections.abc import Mapping
from typing import Any

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


def instance(schema: Mapping[str, Any], text: str) -> Any:
    """The smallest value of the schema, with `text` where any string is valid. `pattern` and `not` are ignored."""
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
