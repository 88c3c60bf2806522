"""Forms that providers document are converted to OpenAI's; everything else stays as it is."""

from typing import Any

import pytest

from understudy.models.request.endpoints import canonical_chat, endpoint_named
from understudy.models.request.wire import check_body


def asked(*parts: Any) -> dict[str, Any]:
    return {"n": 1, "messages": [{"role": "system", "content": "look"}, {"role": "user", "content": [*parts]}]}


URL = "https://example.com/tower.jpg"
IMAGE = {"type": "image_url", "image_url": {"url": URL}}


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"type": "image_url", "image_url": URL}, IMAGE),
        ({"type": "image_url", "image_url": URL, "cache_control": {"type": "ephemeral"}},
         {**IMAGE, "cache_control": {"type": "ephemeral"}}),
        ({"type": "input_text", "text": "hi"}, {"type": "text", "text": "hi"}),
        ({"type": "output_text", "text": "hi"}, {"type": "text", "text": "hi"}),
        ({"type": "input_image", "image_url": URL}, IMAGE),
        ({"type": "input_image", "image_url": URL, "detail": "low"},
         {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}),
        ({"type": "image", "source": {"type": "url", "url": URL}}, IMAGE),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
         {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}),
    ],
)  # fmt: skip
def test_a_part_that_another_protocol_documents_becomes_openais(given: Any, canonical: Any) -> None:
    body = asked({"type": "text", "text": "What is it?"}, given)
    respelt = canonical_chat(body)
    assert respelt == asked({"type": "text", "text": "What is it?"}, canonical)
    assert body["messages"][1]["content"][1] == given, "what the caller gave is not changed"
    check_body(respelt)


@pytest.mark.parametrize(
    "body",
    [
        asked(IMAGE, {"type": "text", "text": "hi"}, {"type": "input_audio", "input_audio": "UklG"}),
        asked("hi", 7, None, {"text": "hi"}, {"type": 7}, {"type": ["text"]}),
        asked({"type": "image_url", "image_url": 7}, {"type": "input_image", "file_id": "file_1"}),
        asked({"type": "image", "source": "x"}, {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        {"messages": [7, {"content": "hi"}, {"content": None}, {"role": "user"}]},
        {"messages": "hi"},
        {},
    ],
)
def test_what_is_not_known_or_not_right_is_left_to_the_check(body: dict[str, Any]) -> None:
    assert canonical_chat(body) is body


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions/"])
def test_azures_url_names_the_same_endpoint(url: str) -> None:
    assert endpoint_named(url) == "/v1/chat/completions"
    assert endpoint_named(url.replace("chat/completions", "embeddings")) == "/v1/embeddings"


@pytest.mark.parametrize("url", ["chat/completions", "/v2/chat/completions", "/v1/completions", "/v1", "/", 7, None])
def test_another_url_names_none(url: object) -> None:
    assert endpoint_named(url) is None
