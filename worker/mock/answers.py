"""The content of answers, before it is encoded for a protocol. Equal requests get equal answers."""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from understudy.worker.mock.asked import Asked, Tool
from understudy.worker.mock.chance import draw, roll
from understudy.worker.mock.config import Answers
from understudy.worker.mock.instance import instance

BYTES_PER_TOKEN = 4

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


def compose(asked: Asked, answers: Answers, seed: int) -> Reply:
    """The answer to a request; `tool_call` and a JSON schema take precedence over the text template."""
    digest = asked.digest.hex()
    call = _tool_call(asked, answers, digest)
    finish: Finish = answers.finish or ("tool_calls" if call else "stop")
    if finish == "refusal":
        call, texts = None, ["This cannot be answered."] * asked.n
    elif call:
        texts = [""] * asked.n
    else:
        texts = [_text(asked, answers, digest, seed, choice) for choice in range(asked.n)]
    written = sum(map(_tokens, texts)) + (_tokens(orjson.dumps(call.arguments).decode()) + 5 if call else 0)
    room = asked.max_tokens
    if room is not None and not call and max(map(_tokens, texts)) + answers.reasoning_tokens > room:
        texts = [text[: max(room - answers.reasoning_tokens, 0) * BYTES_PER_TOKEN] for text in texts]
        finish, written = "length", sum(map(_tokens, texts))
    return Reply(
        id=digest[:24],
        texts=tuple(texts),
        tool_call=call,
        finish=finish,
        input_tokens=asked.input_tokens,
        output_tokens=written + answers.reasoning_tokens,
        cached_tokens=int(asked.input_tokens * answers.cached_share),
        reasoning_tokens=answers.reasoning_tokens,
    )


def _tokens(text: str) -> int:
    return -(-len(text) // BYTES_PER_TOKEN)


def _tool_call(asked: Asked, answers: Answers, digest: str) -> ToolCall | None:
    forced = asked.tool_choice == "required" or asked.tool_choice.startswith("=")
    wanted = answers.tools == "always" or (answers.tools == "when_required" and forced)
    if not asked.tools or not wanted or asked.tool_choice == "none":
        return None
    tool = _chosen(asked)
    arguments = instance(tool.schema, digest[:12]) if tool.schema else {}
    return ToolCall(digest[:20], tool.name, arguments if isinstance(arguments, dict) else {})


def _chosen(asked: Asked) -> Tool:
    name = asked.tool_choice.removeprefix("=")
    return next((tool for tool in asked.tools if tool.name == name), asked.tools[0])


def _text(asked: Asked, answers: Answers, digest: str, seed: int, choice: int) -> str:
    short = digest[:12] if choice == 0 else f"{digest[:12]}-{choice}"
    if asked.schema is not None and answers.heeds_format:
        value = instance(asked.schema, short) if asked.schema else {"answer": short}
        return orjson.dumps(value).decode()
    # Not str.format: a brace in a prompt or in the template's own text must stay as it is.
    fields = {"{hash}": short, "{model}": asked.model, "{provider}": asked.provider, "{prompt}": asked.prompt}
    text = answers.text
    for field, value in fields.items():
        text = text.replace(field, value)
    if answers.output_tokens is None:
        return text
    tokens = round(draw(answers.output_tokens, roll(seed, "tokens", asked.provider, asked.model, digest, choice)))
    return _of_length(text, max(tokens, 1) * BYTES_PER_TOKEN, digest)


def _of_length(text: str, length: int, digest: str) -> str:
    filler = " ".join(digest[start : start + 7] for start in range(0, len(digest), 7)) + " "
    missing = length - len(text) - 1
    return text[:length] if missing < 0 else f"{text} {filler * (missing // len(filler) + 1)}"[:length]
