"""Extracts a provider's complaint from its error body, whatever the format.

Known formats: OpenAI's nested error, xAI's flat one, Anthropic's, Google's (alone or in an array), Bedrock's message
with the exception in a header, FastAPI's detail, OpenRouter's error around another provider's error as a string, an
event stream, plain text and web pages.

Only fields that providers write themselves are read. Fields that echo the request (`input`, `flagged_input`,
`failed_generation`) are not: a prompt about rate limits must not become one, nor end up in a message.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from understudy.worker.failures.masking import masked

MAX_READ_BYTES = 256 * 1024
MAX_BODY_CHARS = 4_096
MAX_MESSAGE_CHARS = 500
MAX_TEXT_CHARS = 4_000
"""Phrases are searched in this much of a complaint; no provider's sentence is longer."""

MAX_KEPT_LEVELS = 200
"""Deeper JSON cannot be serialized again; fewer brackets mean fewer levels. It is kept as text."""

MAX_DEPTH = 8
MAX_ITEMS = 10

_CODE_FIELDS = ("code", "type", "status", "reason", "error_type", "error_code", "__type", "Code", "status_code")
_SENTENCE_FIELDS = ("message", "Message", "msg", "error", "detail", "error_message", "status_msg", "faultstring", "raw")
_INNER_FIELDS = (
    *_SENTENCE_FIELDS,
    *("details", "errors", "innererror", "metadata", "violations", "choices", "base_resp", "fault"),
)
_DELAY_FIELDS = ("retryDelay", "retry_after", "retry_after_seconds", "estimated_time")
_SAYS_NOTHING = frozenset({"provider returned error", "error", "bad request", "upstream error", "unknown error"})
_OPENS = re.compile(r"<(?:title|h1)[^<>]*>", re.IGNORECASE)
_CLOSES = re.compile(r"</(?:title|h1)>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_ECHO = re.compile(r"\[type=\w+, input_value=.*|,? ?['\"]input['\"]: .*", re.DOTALL)
"""How pydantic quotes the request inside a sentence, to its end."""

_EVENT_STREAM = ("data:", "event:", ":")


@dataclass(slots=True)
class Complaint:
    """`words` are codes, types and reasons; `sentences` are messages for people, outermost first.

    `words_in_text` are those of an error embedded in a sentence, which routers produce, and callers can forge.
    `headers` are those reported in the body itself (OpenRouter). `body` is the part of the body that may be kept.
    """

    words: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    retry_delays: list[Any] = field(default_factory=list)
    quota_ids: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    names_a_parameter: bool = False
    words_in_text: set[str] = field(default_factory=set)
    is_page: bool = False
    body: object = None

    @property
    def text(self) -> str:
        return "\n".join(self.sentences)[:MAX_TEXT_CHARS]

    @property
    def code(self) -> str | None:
        """The provider's own name for the error; a number only if there is no name."""
        return next((word for word in self.words if not word.isdigit()), self.words[0] if self.words else None)

    def message(self, status: int) -> str:
        """One short printable sentence for the ledger."""
        telling = [each for each in self.sentences if each.lower().rstrip(".") not in _SAYS_NOTHING]
        sentence = next(filter(None, map(_one_line, telling or self.sentences)), "")
        if not sentence:
            return f"HTTP {status} without an explanation"
        return (f"HTTP {status} with a web page: {sentence}" if self.is_page else sentence)[:MAX_MESSAGE_CHARS]


def read_complaint(headers: Mapping[str, str], body: bytes | str) -> Complaint:
    """`headers` with names in lower case. Never raises."""
    raw = body.encode(errors="replace") if isinstance(body, str) else body
    text = masked(raw[:MAX_READ_BYTES].decode(errors="replace").replace("\0", "").replace("\\u0000", "")).strip()
    complaint = Complaint(body=text[:MAX_BODY_CHARS] or None)
    exception = headers.get("x-amzn-errortype")
    if exception:
        _add_word(complaint, exception)
    if text.startswith("<") or "text/html" in headers.get("content-type", ""):
        _read_page(complaint, text)
        return complaint
    document = parsed(text)
    if document is None:
        _read_text(complaint, text)
        return complaint
    if isinstance(document, list) and len(document) == 1:  # Vertex AI
        document = document[0]
    if len(text) <= MAX_BODY_CHARS and text.count("[") + text.count("{") <= MAX_KEPT_LEVELS:
        complaint.body = document
    _read(complaint, document, 0)
    return complaint


def _one_line(text: str) -> str:
    printable = "".join(each if each.isprintable() else " " for each in text[:MAX_TEXT_CHARS])
    return " ".join(printable.split())


def parsed(text: str | bytes) -> Any:
    """The JSON document, or None."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _read_page(complaint: Complaint, text: str) -> None:
    complaint.is_page = True
    titles = (" ".join(_TAG.sub(" ", title).split()) for title in islice(_titles(text), MAX_ITEMS))
    complaint.sentences += dict.fromkeys(title for title in titles if title)


def _titles(text: str) -> Iterator[str]:
    end = 0
    while (opens := _OPENS.search(text, end)) and (closes := _CLOSES.search(text, opens.end())):
        yield text[opens.end() : closes.start()]
        end = closes.end()


def _read_text(complaint: Complaint, text: str) -> None:
    if not text.startswith(_EVENT_STREAM):
        complaint.sentences += [text[:MAX_TEXT_CHARS]] if text else []
        return
    for line in text.splitlines():
        event = parsed(line.removeprefix("data:").strip()) if line.startswith("data:") else None
        if isinstance(event, dict) and "error" in event:
            _read(complaint, event, 0)


def _read(complaint: Complaint, value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, str):
        inner = parsed(value) if value.lstrip()[:1] in ("{", "[") else None
        if inner is None:
            complaint.sentences.append(_ECHO.sub("", value[:MAX_TEXT_CHARS]))
        else:
            known = len(complaint.words)
            _read(complaint, inner, depth + 1)
            complaint.words_in_text |= set(complaint.words[known:])
    elif isinstance(value, list):
        for item in value[:MAX_ITEMS]:
            _read(complaint, item, depth + 1)
    elif isinstance(value, dict):
        _read_object(complaint, value, depth)


def _read_object(complaint: Complaint, value: dict[str, Any], depth: int) -> None:
    for name in _CODE_FIELDS:
        if isinstance(value.get(name), str | int):
            _add_word(complaint, str(value[name]))
    if value.get("failed_generation") is not None:  # what the model wrote; only its presence matters
        _add_word(complaint, "failed_generation")
    complaint.names_a_parameter |= bool(value.get("param")) or isinstance(value.get("loc"), list)
    complaint.retry_delays += [value[name] for name in _DELAY_FIELDS if value.get(name) is not None]
    if isinstance(value.get("quotaId"), str):
        complaint.quota_ids.append(value["quotaId"])
    if isinstance(value.get("headers"), dict):
        complaint.headers |= {str(name).lower(): str(each) for name, each in value["headers"].items()}
    if isinstance(value.get("loc"), list) and isinstance(value.get("msg"), str):  # FastAPI
        complaint.sentences.append(f"{'.'.join(map(str, value['loc']))}: {value['msg']}")
        return
    for inner in _inner(value):
        _read(complaint, inner, depth + 1)


def _inner(value: dict[str, Any]) -> Iterator[Any]:
    """The contents of an error object, its own sentence first. A plain string counts only where providers put one."""
    for name in _INNER_FIELDS:
        inner = value.get(name)
        if isinstance(inner, dict | list) or (isinstance(inner, str) and name in _SENTENCE_FIELDS):
            yield inner


def _add_word(complaint: Complaint, word: str) -> None:
    """AWS writes exceptions as `com.amazon…#Name` and `Name:http://…`."""
    word = word.split("#")[-1].split(":http")[0].strip().strip(":")
    if word and len(word) <= 100 and word not in complaint.words:
        complaint.words.append(word)
