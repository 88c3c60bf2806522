"""Answers of Google's generateContent, from the Gemini API and from Vertex AI.

Across both, their versions and gateways in front of them, names are camelCase or snake_case, enums are words or
numbers, and the same number can mean a different word on Vertex AI.
"""

import re
from collections.abc import Mapping
from typing import Any

from understudy.models.failure import FailureClass
from understudy.worker.providers.base import Answer, BadAnswer, Call
from understudy.worker.providers.completion import Choice, made_id, mapping, parse_object, sequence, string
from understudy.worker.providers.structured import conclude
from understudy.worker.providers.usage import gemini_usage

_NUMBERED = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
_GEMINI_NUMBERS = (*_NUMBERED, "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL")
_VERTEX_NUMBERS = (*_NUMBERED, "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL", "MODEL_ARMOR")
"""Finish reasons by number. Source: the two services' published protocol buffers."""

_TEXT_KEYS = frozenset({"text", "thought", "thoughtSignature"})
_SNAKE = re.compile(r"_([a-z0-9])")
_FREE = frozenset({"args", "response"})
"""Their content is the caller's own."""


def read(call: Call, headers: Mapping[str, str], content: bytes) -> Answer:
    """Raises BadAnswer, of class `content_filter` if the prompt was blocked."""
    body = _camel(parse_object(content))
    usage = mapping(body.get("usageMetadata"))
    response_id = string(body.get("responseId")) or made_id("", content)
    candidates = [mapping(candidate) for candidate in sequence(body.get("candidates"))]
    choices = [
        _choice(candidate, _finish_word(candidate.get("finishReason"), call, body), f"{response_id}-{index}")
        for index, candidate in enumerate(candidates)
    ]
    fault = None
    if not choices:
        fault = _blocked(mapping(body.get("promptFeedback")), choices)
    elif any(map(_stops_with_nothing, candidates, choices)):
        fault = BadAnswer("The answer ended without content.")
    return conclude(
        call,
        choices,
        gemini_usage(usage),
        headers,
        answer_id=response_id,
        model=string(body.get("modelVersion")) or call.model,
        raw_usage=usage or None,
        fault=fault,
    )


def _stops_with_nothing(candidate: dict[str, Any], choice: Choice) -> bool:
    """A known bug of Gemini: it stops immediately, or after its thoughts, and a retry helps."""
    parts = [mapping(part) for part in sequence(mapping(candidate.get("content")).get("parts"))]
    spoken = any(part.get("text") or part.keys() - _TEXT_KEYS for part in parts if part.get("thought") is not True)
    return choice.finish_reason == "stop" and not spoken


def _blocked(feedback: dict[str, Any], choices: list[Choice]) -> BadAnswer:
    """Why there are no candidates. A blocked prompt becomes a choice; raises BadAnswer if it was not blocked."""
    if feedback.get("blockReason") in (None, 0, "", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"):
        raise BadAnswer("The answer has no candidates.")
    choices.append(Choice(raw_finish=str(feedback["blockReason"]), finish_reason="content_filter"))
    return BadAnswer("The provider blocked the prompt.", FailureClass.CONTENT_FILTER, feedback)


def _camel(value: Any) -> Any:
    if isinstance(value, list):
        return [_camel(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    camel = {_SNAKE.sub(lambda match: match[1].upper(), name): name for name in value}
    return {name: value[own] if name in _FREE else _camel(value[own]) for name, own in camel.items()}


def _finish_word(reason: Any, call: Call, body: dict[str, Any]) -> str:
    if not isinstance(reason, int):
        return string(reason).removeprefix("FINISH_REASON_")
    is_vertex = "vertex" in call.dialect or "createTime" in body or "trafficType" in mapping(body.get("usageMetadata"))
    words = (*(_VERTEX_NUMBERS if is_vertex else _GEMINI_NUMBERS), "IMAGE_SAFETY")
    return words[reason] if 0 <= reason < len(words) else str(reason)


def _choice(candidate: dict[str, Any], reason: str, seed: str) -> Choice:
    choice = Choice(logprobs=_logprobs(candidate))
    choice.finish(reason)
    signatures = []
    for index, part in enumerate(map(mapping, sequence(mapping(candidate.get("content")).get("parts")))):
        signature = string(part.get("thoughtSignature"))
        call = part.get("functionCall")
        if isinstance(call, dict):
            extra = {"google": {"thought_signature": signature}} if signature else None
            call_id = string(call.get("id")) or made_id("call_", seed, index)
            choice.call(call_id, string(call.get("name")), call.get("args"), extra)
        elif signature:
            signatures.append(signature)
        _read_content(choice, part)
    if signatures:
        choice.extra = {"google": {"thought_signature": signatures[-1]}}
    return choice


def _read_content(choice: Choice, part: dict[str, Any]) -> None:
    """What Google executes itself (`executableCode`, `toolCall` and their results) is left out, and so is audio."""
    (choice.reasoning if part.get("thought") is True else choice.text).append(string(part.get("text")))
    inline = mapping(part.get("inlineData"))
    is_image = string(inline.get("mimeType")).startswith("image/")
    if is_image and string(inline.get("data")) and part.get("thought") is not True:
        url = f"data:{string(inline.get('mimeType'))};base64,{inline['data']}"
        choice.images.append({"type": "image_url", "image_url": {"url": url}})


def _logprobs(candidate: dict[str, Any]) -> dict[str, Any] | None:
    result = mapping(candidate.get("logprobsResult"))
    chosen = sequence(result.get("chosenCandidates"))
    if not chosen:
        return None
    tops = [sequence(mapping(top).get("candidates")) for top in sequence(result.get("topCandidates"))]
    tops += [[]] * (len(chosen) - len(tops))
    content = [
        {**_logprob(mapping(token)), "top_logprobs": [_logprob(mapping(other)) for other in top]}
        for token, top in zip(chosen, tops, strict=False)
    ]
    return {"content": content, "refusal": None}


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    text = string(token.get("token"))
    return {
        "token": text,
        "logprob": token.get("logProbability"),
        "bytes": list(text.encode(errors="surrogatepass")),
    }
