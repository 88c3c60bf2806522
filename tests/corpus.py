"""Measures the classifier and the adapters on recorded provider traffic: `make corpus DIR=folder`.

DIR contains `errors.jsonl` (responses with their failure class) and `answers.jsonl` (responses with the expected fields
of the chat completion made from them). Prints the agreement and one line per disagreement; exit code 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import orjson

from understudy.models.failure import FailureClass
from understudy.worker.failures import classify, classify_success
from understudy.worker.providers.base import BadAnswer, Call
from understudy.worker.providers.registry import adapter_for

DIALECTS = {
    "google-ai-studio": "gemini",
    "vertex-ai": "vertex",
    "aws-bedrock": "bedrock",
    "azure-openai": "azure",
    "ollama-cloud": "ollama",
}
"""Provider names in recordings that differ from the preset's."""

DISPUTED = {
    # The model's output did not fit the tool: the request was right, and a retry may succeed.
    "cassette-groq-400-tool-use-failed": "bad_response",
    # An overload reported inside a 200 is transient, as with an error status.
    "openrouter-200-finish-reason-error-in-choice": "overloaded",
    "openai-200-responses-sse-server-overloaded": "overloaded",
    "anthropic-200-sse-overloaded": "overloaded",
    "deepseek-200-keepalive-blank-lines-only": "overloaded",
}
"""Recordings with a wrong label, by id: the right class, and why."""

HINT_TOLERANCE_S = 1.0
Mismatch = tuple[str, object, object]
"""(field, expected, got)"""


def dialect_of(provider: str) -> str:
    """The preset of a recording's provider; a router's `huggingface-together` is `together`."""
    return DIALECTS.get(provider) or provider.removeprefix("huggingface-")


def check_error(case: Mapping[str, Any]) -> list[Mismatch]:
    dialect, protocol, status = dialect_of(case["provider"]), case["protocol"], case["status"]
    body = case["body"].encode()
    expected = DISPUTED.get(case["id"], case["expect"])
    if 200 <= status < 300:
        got, hint_s = _class_of_success(dialect, protocol, status, case["headers"], body), None
    else:
        failure = classify(dialect, protocol, status, case["headers"], body, _when(case["headers"]))
        got, hint_s = str(failure.cls), failure.hint_s
    wrong: list[Mismatch] = []
    if got != expected:
        wrong.append(("class", expected, got))
    expected_s = case["hint_s"]
    if expected_s is not None and (hint_s is None or abs(hint_s - expected_s) > HINT_TOLERANCE_S):
        wrong.append(("hint_s", expected_s, hint_s))
    return wrong


def _class_of_success(dialect: str, protocol: str, status: int, headers: Mapping[str, str], body: bytes) -> str:
    """How a 2xx that should not be an answer was classified. A filtered answer counts as its finish reason."""
    try:
        answer = adapter_for(protocol).answer(Call(dialect, "model", {"messages": []}), status, headers, body)
    except BadAnswer as bad:
        load = classify_success(dialect, protocol, headers, body, _when(headers))
        return str(load.cls if load and bad.cls is FailureClass.BAD_RESPONSE else bad.cls)
    reason = str(answer.completion["choices"][0]["finish_reason"])
    return reason if reason == FailureClass.CONTENT_FILTER else f"an answer ({reason})"


def _when(headers: Mapping[str, str]) -> float:
    """The time of the response, so that hints given as a time of day become the right number of seconds."""
    date = headers.get("date")
    return parsedate_to_datetime(date).timestamp() if date else 0.0


def check_answer(case: Mapping[str, Any]) -> list[Mismatch]:
    expect, dialect = case["expect"], dialect_of(case["provider"])
    call = Call(dialect, _model_of(case), _openai_body(case))
    try:
        answer = adapter_for(case["protocol"]).answer(
            call, case["status"], case["headers"], orjson.dumps(case["response"])
        )
    except BadAnswer as bad:
        if expect["finish_reason"] == "failure" and bad.cls is FailureClass.BAD_RESPONSE:
            return []
        if bad.cls is not FailureClass.CONTENT_FILTER or bad.answer is None:
            return [] if "finish_reason" in case["unsure"] else [("finish_reason", expect["finish_reason"], f"{bad}")]
        answer = bad.answer
    choices = answer.completion["choices"]
    got = _choice_fields(choices[0]) | _usage_fields(answer.completion["usage"])
    wrong = _differences(expect, got, case["unsure"])
    for index, expected_choice in enumerate(expect.get("choices", ())):
        found = _choice_fields(choices[index]) if index < len(choices) else {}
        wrong += [
            (f"choices[{index}].{key}", want, have)
            for key, want, have in _differences(expected_choice, found, case["unsure"])
        ]
    if not _in_order(expect.get("content_parts", ()), got["content"] or ""):
        wrong.append(("content_parts", expect["content_parts"], got["content"]))
    return wrong


def _choice_fields(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    return {
        "finish_reason": choice["finish_reason"],
        "content": message.get("content"),
        "refusal": message.get("refusal"),
        "tool_calls": [
            {"name": call["function"]["name"], "arguments": _parsed(call["function"]["arguments"])}
            for call in message.get("tool_calls") or ()
        ],
    }


def _usage_fields(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"],
    }


def _differences(expect: Mapping[str, Any], got: Mapping[str, Any], unsure: list[str]) -> list[Mismatch]:
    """null and "" are the same; fields that the label is unsure of are not compared."""
    wrong: list[Mismatch] = []
    for key, expected in expect.items():
        if key in unsure or key in ("choices", "content_parts"):
            continue
        if (expected or None) != (got.get(key) or None):
            wrong.append((key, expected, got.get(key)))
    return wrong


def _in_order(parts: list[str], text: str) -> bool:
    return re.search(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def _parsed(arguments: str) -> Any:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments


def _model_of(case: Mapping[str, Any]) -> str:
    in_path = re.search(r"/models?/([^/:]+(?::\d+)?)", case["path"])
    return case["request"].get("model") or (in_path.group(1) if in_path else "model")


def _openai_body(case: Mapping[str, Any]) -> dict[str, Any]:
    """A chat-completion body with the recorded request's requirements on the form of the answer."""
    request = case["request"]
    if case["protocol"] == "openai":
        return dict(request)
    body: dict[str, Any] = {"model": _model_of(case), "messages": [{"role": "user", "content": "…"}]}
    names = [name for tool in _wire_tools(request) for name in _names(tool)]
    if names:
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in names]
    return body


def _wire_tools(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    return request.get("tools") or (request.get("toolConfig") or {}).get("tools") or []


def _names(tool: Mapping[str, Any]) -> Iterator[str]:
    """The functions declared by a tool of any protocol; a hosted tool declares none."""
    if "input_schema" in tool:
        yield tool["name"]
    if "toolSpec" in tool:
        yield tool["toolSpec"]["name"]
    for declared in tool.get("functionDeclarations") or tool.get("function_declarations") or ():
        yield declared["name"]


def measure(name: str, path: Path, check: Any, out: Any) -> int:
    """Print `name: agreeing of all` and each disagreement; returns the number of disagreements."""
    cases = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    lines, disagreeing = [], 0
    for case in cases:
        wrong = check(case)
        disagreeing += bool(wrong)
        lines += [f"  {case['id']}: {field}: expected {want!r}, got {got!r}" for field, want, got in wrong]
    out.write("\n".join([f"{name}: {len(cases) - disagreeing} of {len(cases)}", *lines, ""]))
    return disagreeing


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("Give one folder with errors.jsonl and answers.jsonl: make corpus DIR=folder\n")
        return 2
    folder = Path(arguments[0])
    disagreeing = measure("errors", folder / "errors.jsonl", check_error, sys.stdout)
    disagreeing += measure("answers", folder / "answers.jsonl", check_answer, sys.stdout)
    return 1 if disagreeing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
