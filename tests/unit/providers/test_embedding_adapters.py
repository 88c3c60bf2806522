"""Embeddings in each protocol: what is sent, what is read, and which responses with status 200 are not answers."""

import base64
import struct
from typing import Any

import orjson
import pytest

from understudy.models.routing.chain import EMBEDDINGS
from understudy.worker.mock.bodies import vector
from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.registry import adapter_for

ENDPOINT = Endpoint("https://host.example/v1", "sk-secret")
NAMES = {"openai": "text-embedding-3-small", "gemini": "gemini-embedding-001"}
SERVED = sorted(NAMES)


def call(protocol: str, dialect: str | None = None, **body: Any) -> Call:
    return Call(dialect or protocol, NAMES.get(protocol, "m"), {"input": ["one", "two"], **body}, EMBEDDINGS)


def sent(protocol: str, endpoint: Endpoint = ENDPOINT, **body: Any) -> tuple[WireRequest, dict[str, Any]]:
    request = adapter_for(protocol).request(call(protocol, **body), endpoint)
    return request, orjson.loads(request.content)


def wire(protocol: str, *vectors: Any, **more: Any) -> bytes:
    """A response of the protocol with status 200."""
    if protocol == "gemini":
        return orjson.dumps({"embeddings": [{"values": each} for each in vectors], **more})
    data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)]
    return orjson.dumps({"object": "list", "data": data, "model": "said-so", **more})


def read(protocol: str, content: bytes, **body: Any) -> Answer:
    return adapter_for(protocol).answer(call(protocol, **body), 200, {}, content)


def floats(encoded: str) -> list[float]:
    raw = base64.b64decode(encoded)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def test_openais_request_goes_as_it_came() -> None:
    request, body = sent("openai", dimensions=256, encoding_format="base64", user="u", house_rule=1)
    assert request.path == "/embeddings"
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert body == {
        "model": NAMES["openai"],
        "input": ["one", "two"],
        "dimensions": 256,
        "encoding_format": "base64",
        "user": "u",
        "house_rule": 1,
    }


def test_azures_dated_surface_has_a_path_for_each_deployment() -> None:
    endpoint = Endpoint("https://a.example", "k", options={"api_version": "2024-10-21"})
    request, _ = sent("openai", endpoint, dialect="azure")
    assert request.path == "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21"
    assert request.headers["api-key"] == "k"


def test_mistral_has_another_word_for_dimensions_and_no_users() -> None:
    request, body = sent("openai", dialect="mistral", dimensions=64, user="u")
    assert body["output_dimension"] == 64 and not body.keys() & {"dimensions", "user"}
    assert request.dropped == ("user",)


def test_gemini_gets_one_request_for_each_text() -> None:
    request, body = sent(
        "gemini",
        Endpoint("https://g.example", "sk-secret"),
        dimensions=64,
        encoding_format="base64",
        user="u",
        task_type="RETRIEVAL_QUERY",
    )
    name = "models/gemini-embedding-001"
    assert request.path == f"/v1beta/{name}:batchEmbedContents"
    assert request.headers["x-goog-api-key"] == "sk-secret"
    assert request.dropped == ("user",)
    shared = {"model": name, "outputDimensionality": 64, "taskType": "RETRIEVAL_QUERY"}
    assert body == {"requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in ("one", "two")]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"input": [1, 2]}, "token arrays"),
        ({"input": [[1, 2], [3]]}, "token arrays"),
        ({"input": ["x"] * 101}, "101 texts"),
        ({"house_rule": 1}, "house_rule"),
    ],
)
def test_what_gemini_cannot_be_told_skips_the_step(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(CannotExpress, match=reason):
        sent("gemini", **body)


@pytest.mark.parametrize("protocol", ["anthropic", "bedrock"])
def test_protocols_without_embeddings_skip_the_step(protocol: str) -> None:
    with pytest.raises(CannotExpress, match=f"the {protocol} protocol has no embeddings"):
        sent(protocol)


@pytest.mark.parametrize("protocol", SERVED)
def test_an_answer_is_openais_list_of_vectors_in_the_order_of_the_inputs(protocol: str) -> None:
    answer = read(protocol, wire(protocol, [0.5, -0.25], [1.0, 0]))
    assert answer.completion["object"] == "list"
    assert answer.completion["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]},
        {"object": "embedding", "index": 1, "embedding": [1.0, 0.0]},
    ]
    assert answer.model == answer.completion["model"] == ("said-so" if protocol == "openai" else NAMES["gemini"])


@pytest.mark.parametrize("protocol", SERVED)
def test_base64_is_made_of_numbers_where_the_provider_sends_numbers(protocol: str) -> None:
    answer = read(protocol, wire(protocol, [0.5, -0.25], [1.0, 0.0]), encoding_format="base64")
    assert [floats(each["embedding"]) for each in answer.completion["data"]] == [[0.5, -0.25], [1.0, 0.0]]


@pytest.mark.parametrize(("asked", "shown"), [("base64", "AAAAPwAAgL4="), ("float", [0.5, -0.25])])
def test_base64_from_a_provider_is_checked_and_answered_in_the_form_that_was_asked_for(asked: str, shown: Any) -> None:
    answer = read("openai", wire("openai", "AAAAPwAAgL4=", "AAAAPwAAgL4="), encoding_format=asked)
    assert answer.completion["data"][1]["embedding"] == shown


def test_vectors_are_put_in_order_by_their_index() -> None:
    data = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]
    answer = read("openai", orjson.dumps({"data": data}))
    assert [each["embedding"] for each in answer.completion["data"]] == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("protocol", "usage", "tokens"),
    [
        ("openai", {"usage": {"prompt_tokens": 7, "total_tokens": 7}}, 7),
        ("openai", {"usage": {"total_tokens": 8}}, 8),
        ("openai", {}, 2),
        ("gemini", {"usageMetadata": {"promptTokenCount": 9}}, 9),
        ("gemini", {"usage_metadata": {"prompt_token_count": 9}}, 9),
        ("gemini", {}, 2),
    ],
)
def test_tokens_are_the_providers_count_or_else_our_estimate(protocol: str, usage: dict[str, Any], tokens: int) -> None:
    answer = read(protocol, wire(protocol, [1.0], [2.0], **usage))
    assert answer.usage.input_tokens == tokens and answer.usage.output_tokens == 0
    assert answer.completion["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer.raw_usage is None) == (not usage)


NAN = base64.b64encode(struct.pack("<2f", 1.0, float("nan"))).decode()


@pytest.mark.parametrize("protocol", SERVED)
@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ([], "no embeddings"),
        ([[1.0]], "1 embeddings instead of 2"),
        ([[1.0], [1.0], [1.0]], "3 embeddings instead of 2"),
        ([[1.0], []], "empty"),
        ([[1.0], [1.0, 2.0]], "differ in length"),
        ([[1.0], None], "not a list of numbers"),
        ([[1.0], [None]], "not a list of numbers"),
        ([[1.0], ["x"]], "not a list of numbers"),
        ([[1.0], {"0": 1.0}], "not a list of numbers"),
        ([NAN, NAN], "not a list of numbers"),
        (["AAAAPw=", "AAAAPw="], "not a list of numbers"),
        (["AAA=", "AAA="], "not a list of numbers"),
        ([[1.0], 3], "not a list of numbers"),
    ],
)
def test_short_empty_or_broken_vectors_are_not_an_answer(protocol: str, vectors: list[Any], reason: str) -> None:
    with pytest.raises(BadAnswer, match=reason):
        read(protocol, wire(protocol, *vectors))


@pytest.mark.parametrize("protocol", SERVED)
def test_a_nan_in_the_json_is_not_an_answer(protocol: str) -> None:
    content = wire(protocol, [1.0], [2.5]).replace(b"2.5", b"NaN")
    with pytest.raises(BadAnswer, match="not a list of numbers"):
        read(protocol, content)


@pytest.mark.parametrize("protocol", SERVED)
def test_other_dimensions_than_requested_are_not_an_answer(protocol: str) -> None:
    with pytest.raises(BadAnswer, match="2 dimensions instead of 3") as bad:
        read(protocol, wire(protocol, [1.0, 2.0], [1.0, 2.0]), dimensions=3)
    assert bad.value.answer is not None and bad.value.answer.usage.input_tokens == 2, "it is paid for all the same"


@pytest.mark.parametrize("numbers", [[0, 0], [1, 2], [-1, 0], [None, 0], ["0", "1"], [True, False]])
def test_vectors_with_odd_numbering_are_not_an_answer(numbers: list[Any]) -> None:
    data = [{"index": number, "embedding": [1.0]} for number in numbers]
    with pytest.raises(BadAnswer, match="numbered"):
        read("openai", orjson.dumps({"data": data}))


@pytest.mark.parametrize("protocol", SERVED)
@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"error": {"message": "no"}}', b'{"data": 3}', b"{}"])
def test_anything_but_a_list_of_embeddings_is_not_an_answer(protocol: str, content: bytes) -> None:
    with pytest.raises(BadAnswer):
        read(protocol, content)


@pytest.mark.parametrize(("given", "count"), [("one", 1), (["one"], 1), ([5, 6, 7], 1), ([[5, 6], [7]], 2)])
def test_one_vector_is_expected_for_each_text_or_token_array(given: Any, count: int) -> None:
    assert len(read("openai", wire("openai", *[[1.0]] * count), input=given).completion["data"]) == count
    with pytest.raises(BadAnswer):
        read("openai", wire("openai", *[[1.0]] * (count + 1)), input=given)


def test_the_mocks_vectors_are_the_same_for_the_same_text_and_have_length_1() -> None:
    assert vector("x", 8) == vector("x", 8) != vector("y", 8)
    assert sum(number * number for number in vector("x", 300)) == pytest.approx(1.0)
