"""The messages of a chat completion, parsed once for every protocol that is not OpenAI's.

Those protocols expect one system text, alternating user and assistant turns, tool results inside the user's turn, and
arguments as objects. `read_conversation` converts the messages into that form; adapters only serialize it.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import orjson

from understudy.worker.providers.base import CannotExpress

_PORTABLE_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BASE64 = re.compile(r"[a-zA-Z0-9+/]*={0,2}")
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_CONTINUE = "Continue."


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    cache: Mapping[str, Any] | None = None  # `cache_control`: cache the prompt up to here


@dataclass(frozen=True, slots=True)
class Media:
    """An image, document or sound: `data` in base64, or a `url` that the provider would have to fetch."""

    kind: Literal["image", "file", "audio"]
    mime: str | None
    data: str | None = None
    url: str | None = None
    name: str | None = None
    where: str = "messages"
    cache: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: dict[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)  # `extra_content`, by the name of its provider


@dataclass(frozen=True, slots=True)
class ToolResult:
    id: str
    name: str
    content: tuple[Text | Media, ...]
    cache: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content if isinstance(part, Text))


Block = Text | Media | ToolCall | ToolResult


@dataclass(slots=True)
class Turn:
    """The consecutive messages of one side. `extra` is the assistant's `extra_content`."""

    role: Literal["user", "assistant"]
    blocks: list[Block] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Conversation:
    """`dropped` lists advisory fields that the other protocols do not have."""

    system: list[Text]
    turns: list[Turn]
    dropped: list[str]

    def media(self) -> Iterator[Media]:
        for turn in self.turns:
            for block in turn.blocks:
                parts = block.content if isinstance(block, ToolResult) else (block,)
                yield from (part for part in parts if isinstance(part, Media))


def read_conversation(body: Mapping[str, Any]) -> Conversation:
    """Raises CannotExpress for a message or part without a translation, with its location."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise CannotExpress("messages must be a list of at least one message")
    reader = _Reader()
    for index, message in enumerate(messages):
        reader.read(expect(message, dict, f"messages[{index}]"), f"messages[{index}]")
    return reader.conversation()


def expect(value: Any, kind: type, where: str) -> Any:
    """`value`, if it has that type; malformed requests are rejected before they are sent."""
    if not isinstance(value, kind):
        raise CannotExpress(f"{where} must be {_JSON_NAMES[kind]}")
    return value


_JSON_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a whole number"}


class _Reader:
    def __init__(self) -> None:
        self.system: list[Text] = []
        self.turns: list[Turn] = []
        self.dropped: list[str] = []
        self.tool_names: dict[str, str] = {}

    def read(self, message: dict[str, Any], where: str) -> None:
        match message.get("role"):
            case "system" | "developer":
                self.system += self._texts(message, where)
            case "user":
                self._say("user", list(self._parts(message.get("content"), where)))
            case "assistant":
                self._assistant(message, where)
            case "tool":
                self._tool(message, where)
            case _:
                raise CannotExpress(f"{where}.role must be system, developer, user, assistant or tool")
        if message.get("name") is not None and message["role"] != "tool":
            self._drop("messages.name")

    def conversation(self) -> Conversation:
        turns = self.turns
        if not turns:
            if not self.system:
                raise CannotExpress("messages contain no text")
            # Elsewhere the model answers only a user; a lone system message is the question itself.
            turns, self.system = [Turn("user", list(self.system))], []
        if turns[0].role == "assistant":
            turns = [Turn("user", [Text(_CONTINUE)]), *turns]
        if turns[-1].role == "assistant":
            # An open assistant turn would be taken for the beginning of the answer, or rejected.
            turns = [*turns, Turn("user", [Text(_CONTINUE)])]
        return Conversation(self.system, turns, self.dropped)

    def _texts(self, message: dict[str, Any], where: str) -> list[Text]:
        parts = list(self._parts(message.get("content"), where))
        texts = [part for part in parts if isinstance(part, Text)]
        if len(texts) != len(parts):
            raise CannotExpress(f"{where}.content may only be text for the role {message['role']}")
        return texts

    def _assistant(self, message: dict[str, Any], where: str) -> None:
        for name in ("audio", "function_call"):
            if message.get(name):
                raise CannotExpress(f"{where}.{name} has no translation")
        blocks: list[Block] = list(self._parts(message.get("content"), where))
        if not blocks and isinstance(message.get("refusal"), str):
            blocks = [Text(message["refusal"])]
        calls = expect(message.get("tool_calls") or [], list, f"{where}.tool_calls")
        for index, call in enumerate(calls):
            blocks.append(self._call(call, f"{where}.tool_calls[{index}]"))
        extra = message.get("extra_content")
        self._say("assistant", blocks, extra if isinstance(extra, dict) else {})

    def _call(self, call: Any, where: str) -> ToolCall:
        expect(call, dict, where)
        if call.get("type", "function") != "function":
            raise CannotExpress(f"{where}.type must be function")
        function = expect(call.get("function"), dict, f"{where}.function")
        name = expect(function.get("name"), str, f"{where}.function.name")
        call_id = expect(call.get("id"), str, f"{where}.id")
        self.tool_names[call_id] = name
        extra = call.get("extra_content")
        arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
        return ToolCall(portable_id(call_id), name, arguments, extra if isinstance(extra, dict) else {})

    def _tool(self, message: dict[str, Any], where: str) -> None:
        call_id = expect(message.get("tool_call_id"), str, f"{where}.tool_call_id")
        if call_id not in self.tool_names:
            raise CannotExpress(f"{where}.tool_call_id answers no earlier tool call")
        parts = tuple(self._parts(message.get("content"), where))
        cache = message.get("cache_control")
        self._say("user", [ToolResult(portable_id(call_id), self.tool_names[call_id], parts, cache)])

    def _say(self, role: Literal["user", "assistant"], blocks: list[Any], extra: dict[str, Any] | None = None) -> None:
        if not blocks:
            return
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(Turn(role))
        self.turns[-1].blocks += blocks
        self.turns[-1].extra |= extra or {}

    def _parts(self, content: Any, where: str) -> Iterator[Text | Media]:
        """Empty texts are left out: most protocols reject them."""
        if content is None:
            return
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for index, part in enumerate(expect(content, list, f"{where}.content")):
            place = f"{where}.content[{index}]"
            block = self._part(expect(part, dict, place), place)
            if not isinstance(block, Text) or block.text.strip():
                yield block

    def _part(self, part: dict[str, Any], where: str) -> Text | Media:
        cache = part.get("cache_control")
        match part.get("type"):
            case "text":
                return Text(expect(part.get("text"), str, f"{where}.text"), cache)
            case "refusal":
                return Text(expect(part.get("refusal"), str, f"{where}.refusal"), cache)
            case "image_url":
                return self._image(part, where)
            case "input_audio":
                audio = expect(part.get("input_audio"), dict, f"{where}.input_audio")
                mime = _AUDIO_TYPES.get(str(audio.get("format")))
                data = expect(audio.get("data"), str, f"{where}.input_audio.data")
                return Media("audio", mime, data, where=f"{where}.input_audio")
            case "file":
                return _file(part, where)
            case _:
                raise CannotExpress(f"{where}.type has no translation")

    def _image(self, part: dict[str, Any], where: str) -> Media:
        image = part.get("image_url")
        image = {"url": image} if isinstance(image, str) else expect(image, dict, f"{where}.image_url")
        if image.get("detail") not in (None, "auto"):
            self._drop("messages.image_url.detail")
        url = expect(image.get("url"), str, f"{where}.image_url.url")
        return _media("image", url, f"{where}.image_url", cache=part.get("cache_control"))

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)


def _file(part: dict[str, Any], where: str) -> Media:
    file = expect(part.get("file"), dict, f"{where}.file")
    if file.get("file_data") is None:
        raise CannotExpress(f"{where}.file.file_id belongs to one provider; send file_data instead")
    data = expect(file["file_data"], str, f"{where}.file.file_data")
    name = file.get("filename")
    return _media("file", data, f"{where}.file", name if isinstance(name, str) else None, part.get("cache_control"))


def _media(kind: Literal["image", "file"], url: str, where: str, name: str | None = None, cache: Any = None) -> Media:
    if not url.startswith("data:"):
        if "://" not in url:
            raise CannotExpress(f"{where} is neither a data URL nor an address")
        return Media(kind, None, url=url, name=name, where=where, cache=cache)
    mime, data = split_data_url(url, where)
    return Media(kind, mime, data, name=name, where=where, cache=cache)


def split_data_url(url: str, where: str) -> tuple[str, str]:
    """The media type and the content in base64."""
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise CannotExpress(f"{where} is a data URL without a comma")
    mime, *parameters = head.split(";")
    if "base64" not in parameters:
        return mime or "text/plain", base64.b64encode(unquote_to_bytes(data)).decode()
    data = "".join(data.split())
    if not _BASE64.fullmatch(data):
        raise CannotExpress(f"{where} is a data URL whose content is not base64")
    return mime or "text/plain", data


def _arguments(arguments: Any, where: str) -> dict[str, Any]:
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
    try:
        parsed = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise CannotExpress(f"{where} is not a JSON object")
    return parsed


def portable_id(call_id: str) -> str:
    """Some providers' ids contain dots or colons, or are long, which others reject: those become a stable hash."""
    if _PORTABLE_ID.fullmatch(call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode(errors="surrogatepass")).hexdigest()[:24]
