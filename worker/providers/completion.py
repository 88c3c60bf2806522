"""Reads the bodies of answers, and makes OpenAI chat completions of those of other protocols.

Bodies are untrusted: they are parsed however damaged they are, a field of an unexpected type counts as absent
(`mapping`, `sequence`, `string`, `count`), and a missing required field is a BadAnswer.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from understudy.worker.failures.about_load import class_of_finish
from understudy.worker.providers.base import BadAnswer

SHOWN_BODY_CHARS = 2_000

ALWAYS_READ_BYTES = 1024 * 1024
MOST_VALUES_BYTES = 256 * 1024 * 1024
SIZES = {b"{": 256, b"[": 64, b",": 32}
"""Approximate memory of an object, a list and a value. Two thousand long embeddings need 200 MB."""

MOST_LENIENT_BYTES = 8 * 1024 * 1024
"""Lenient parsing takes several times the memory, and the bodies that need it are short."""

FINISH_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "length"),
    "model_context_window_exceeded": "length",
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(("content_filter", "content-filter", "refusal", "safety", "sensitive"), "content_filter"),
    **dict.fromkeys(("recitation", "prohibited_content", "blocklist", "spii", "model_armor"), "content_filter"),
    **dict.fromkeys(("image_safety", "image_recitation", "image_prohibited_content", "jailbreak"), "content_filter"),
    **dict.fromkeys(("content_filtered", "guardrail_intervened"), "content_filter"),
}
"""Every spelling seen in any protocol, in lower case. An unlisted reason is a failure, because the answer may be
incomplete: Anthropic's `pause_turn` and `compaction`, Bedrock's `malformed_tool_use`, Gemini's OTHER and
MALFORMED_FUNCTION_CALL, and future ones."""

_CODE = re.compile(r"[\w.-]{1,40}")
_MORE_THAN_ANY_COUNT = 2**40


@dataclass(slots=True)
class Choice:
    """One candidate, collected block by block. `extra` is what only the provider itself can read again, under its
    name: signatures of reasoning must be returned to their provider and must not reach any other."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    refusal: str | None = None
    raw_finish: str = ""  # the provider's term
    finish_reason: str | None = None  # OpenAI's term; None: unknown or not final
    logprobs: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def finish(self, reason: Any) -> None:
        self.raw_finish = string(reason)
        self.finish_reason = FINISH_REASONS.get(self.raw_finish.lower())

    def call(self, call_id: str, name: str, arguments: Any, extra: dict[str, Any] | None = None) -> None:
        call: dict[str, Any] = {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments_json(arguments)},
        }
        if extra:
            call["extra_content"] = extra
        self.tool_calls.append(call)

    def as_openai(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.text) or None, "refusal": self.refusal}
        optional = {
            "reasoning_content": "".join(self.reasoning),
            "tool_calls": self.tool_calls,
            "images": self.images,
            "extra_content": self.extra,
        }
        message |= {name: value for name, value in optional.items() if value}
        return {"index": index, "message": message, "logprobs": self.logprobs, "finish_reason": self.finish_reason}


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object of a response. Raises BadAnswer for anything else, describing what it is instead, and for an
    error sent with a success status."""
    if not content or content.isspace():
        raise BadAnswer("the answer is empty")
    _refuse_too_many_values(content)
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = _read_leniently(content)
    if isinstance(body, list) and len(body) == 1:  # Vertex AI wraps some answers in an array
        body = body[0]
    if not isinstance(body, dict):
        raise BadAnswer("the answer is JSON, but not an object", body=body)
    error = body.get("error")
    if says_something(error) or "error" in (body.get("object"), body.get("type")):
        code = error.get("code") if isinstance(error, dict) else body.get("code")
        raise BadAnswer(with_code("the answer is an error despite its status", code), body=body)
    return body


def _refuse_too_many_values(content: bytes) -> None:
    """Raises BadAnswer for a body that would take many times its own size when parsed. Brackets and commas in its
    texts are counted, too; they are few."""
    if len(content) > ALWAYS_READ_BYTES:
        needed = sum(content.count(sign) * size for sign, size in SIZES.items())
        if needed > MOST_VALUES_BYTES:
            raise BadAnswer(
                f"reading the answer would take {needed >> 20:,} MB of memory, because it has too many values"
            )


def _read_leniently(content: bytes) -> Any:
    """For what strict parsers reject although it occurs in real answers: NaN, lone surrogates, broken UTF-8.

    The second pass ensures that the result can be serialized as JSON again.
    """
    try:
        if len(content) > MOST_LENIENT_BYTES:
            raise ValueError
        document = json.loads(content.decode(errors="replace"), parse_constant=lambda _: None)
        return orjson.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        text = content[: SHOWN_BODY_CHARS * 4].decode(errors="replace")[:SHOWN_BODY_CHARS]
        raise BadAnswer(_what_it_is(content), body=text) from None


def _what_it_is(content: bytes) -> str:
    start = content[:4096].lstrip()[:64].lower()
    if start.startswith(b"<"):
        return "the answer is a web page, not JSON"
    if start.startswith((b"data:", b"event:", b":")):
        return "the answer is an event stream, which was not requested"
    return "the answer is not valid JSON; it may be truncated"


def unfinished(reason: object, native_reason: object = "") -> BadAnswer:
    """The failure that an unsuccessful finish reason means."""
    sentence = with_code("the answer ended with an unsuccessful finish reason", reason)
    return BadAnswer(sentence, class_of_finish(f"{reason} {native_reason}"))


def with_code(sentence: str, code: object) -> str:
    """Codes are single words or numbers; anything else may be user text and is left out."""
    return f"{sentence} ({code})" if _CODE.fullmatch(str(code or "")) else sentence


def says_something(value: object) -> bool:
    """False for null, "", 0, and objects of only those: gateways in Go send such for absent fields."""
    if isinstance(value, dict):
        return any(map(says_something, value.values()))
    return bool(value)


def arguments_json(arguments: Any) -> str:
    """Arguments in OpenAI's form: JSON in a string, "{}" if the model gave none."""
    if isinstance(arguments, str) and arguments.strip():
        return arguments
    return orjson.dumps(arguments or {}).decode()


def made_id(prefix: str, *seeds: str | bytes | int) -> str:
    """A deterministic id for items that came without one, so that parsing twice yields the same."""
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update((seed if isinstance(seed, bytes) else str(seed).encode(errors="surrogatepass")) + b"\0")
    return prefix + digest.hexdigest()[:24]


def header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def created_at(headers: Mapping[str, str]) -> int:
    """Unix seconds of the response by the provider's own clock, 0 if absent."""
    try:
        return int(parsedate_to_datetime(header(headers, "date") or "").timestamp())
    except ValueError:
        return 0


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < _MORE_THAN_ANY_COUNT else 0
