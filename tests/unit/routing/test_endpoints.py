"""Requests for embeddings: the body, the estimate, and models whose vectors are comparable."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.request.endpoints import model_family
from understudy.models.request.tokens import estimate_embeddings_tokens
from understudy.models.request.wire import MOST_INPUTS, RequestError, check_embeddings_body
from understudy.models.routing.chain import EMBEDDINGS
from understudy.models.routing.request_options import RouteOptions
from understudy.models.routing.route import Router
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ingest.intake import BadLine, JobReader, read_jobs

SMALL = "text-embedding-3-small"
SETTINGS = Settings.model_validate(
    {
        "providers": {
            "openai": {},
            "azure": {"base_url": "https://a.example/openai/v1"},
            "openrouter": {},
            "gemini": {},
            "anthropic": {},
            "bedrock": {},
        },
        "chains": {
            "small": {"steps": [f"openai/{SMALL}", f"azure/{SMALL}"]},
            "mixed": {"steps": [f"openai/{SMALL}", "gemini/gemini-embedding-001"]},
            "one-model": {"steps": ["openai/gpt-4o", "openrouter/openai/gpt-4o"], "same_model_family": True},
            "not-one-model": {"steps": ["openai/gpt-4o", "openai/gpt-4o-mini"], "same_model_family": True},
            "mixed-on-purpose": {
                "steps": [f"openai/{SMALL}", "gemini/gemini-embedding-001"],
                "same_model_family": False,
            },
        },
    }
)


def steps(body: dict[str, Any], options: RouteOptions | None = None) -> list[str]:
    chain, rest = Router(SETTINGS, options, endpoint=EMBEDDINGS).resolve({"input": "x", **body})
    assert chain.endpoint == EMBEDDINGS and rest == {"input": "x"}
    return [str(step) for step in chain.steps]


@pytest.mark.parametrize("given", ["a text", ["one", "two"], [1, 2, 3], [[1, 2], [3]], ["x"] * MOST_INPUTS])
def test_texts_and_token_arrays_can_be_embedded(given: Any) -> None:
    check_embeddings_body({"input": given, "dimensions": 256, "encoding_format": "base64", "user": "u"})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"input": ["x"] * (MOST_INPUTS + 1)}, "input"),
        ({"input": ["x", ""]}, "input[1]"),
        ({"input": ["x", None]}, "input[1]"),
        ({"input": ["x", [1]]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[True]]}, "input[0]"),
        ({"input": [1, "x"]}, "input"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "dimensions": True}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x", "encoding_format": ["float"]}, "encoding_format"),
        ({"input": "x", "user": 1}, "user"),
    ],
)
def test_inputs_that_no_model_could_embed_are_rejected_by_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_embeddings_body(body)
    assert refused.value.param == param


def test_tokens_are_estimated_per_text_and_counted_in_arrays() -> None:
    assert estimate_embeddings_tokens({"input": "x" * 400}) == 100
    assert estimate_embeddings_tokens({"input": ["abc", "語"]}) == 2
    assert estimate_embeddings_tokens({"input": [5, 6, 7]}) == 3
    assert estimate_embeddings_tokens({"input": [[5, 6], [7]]}) == 3


@pytest.mark.parametrize(
    "same",
    [SMALL, f"openai/{SMALL}", f"{SMALL}:free", "Text-Embedding-3-Small", f"models/{SMALL}", f"{SMALL}@default"],
)
def test_a_family_is_the_models_own_name_whichever_provider_serves_it(same: str) -> None:
    assert model_family(same) == SMALL


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SMALL, "text-embedding-3-large"),
        ("gemini-embedding-001", "gemini-embedding-002"),
        ("qwen3-embedding:0.6b", "qwen3-embedding:8b"),
    ],
)
def test_sizes_and_generations_are_families_of_their_own(one: str, other: str) -> None:
    assert model_family(one) != model_family(other)


def test_the_same_model_may_be_asked_of_several_providers() -> None:
    assert steps({"model": "small"}) == [f"openai/{SMALL}", f"azure/{SMALL}"]
    lone = {"model": f"openai/{SMALL}", "fallbacks": [f"openrouter/openai/{SMALL}"]}
    assert steps(lone) == [f"openai/{SMALL}", f"openrouter/openai/{SMALL}"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "mixed"},
        {"chain": "mixed"},
        {"model": f"openai/{SMALL}", "fallbacks": ["gemini/gemini-embedding-001"]},
        {"model": f"openai/{SMALL}", "fallbacks": ["mixed-on-purpose"]},
    ],
)
def test_models_whose_vectors_cannot_be_compared_are_refused_in_one_chain(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"cannot be mixed.*same_model_family = false") as refused:
        steps(body)
    assert refused.value.code == "mixed_model_families"


def test_a_chain_may_say_that_it_mixes_them_on_purpose() -> None:
    assert len(steps({"model": "mixed-on-purpose"})) == 2
    assert len(steps({}, RouteOptions(chain="mixed-on-purpose"))) == 2


def test_completions_may_come_from_any_model() -> None:
    chain, _ = Router(SETTINGS).resolve({"model": "mixed", "messages": []})
    assert len(chain.steps) == 2


def test_completions_come_from_one_model_where_the_chain_says_so() -> None:
    chain, _ = Router(SETTINGS).resolve({"model": "one-model", "messages": []})
    assert len(chain.steps) == 2
    for body in ({"model": "not-one-model"}, {"model": "one-model", "fallbacks": ["gemini/gemini-2.5-flash"]}):
        with pytest.raises(RequestError, match="the chain has same_model_family = true") as refused:
            Router(SETTINGS).resolve({**body, "messages": []})
        assert refused.value.code == "mixed_model_families"


def test_fallbacks_that_are_not_allowed_need_not_match() -> None:
    assert len(steps({"model": "mixed", "allow_fallbacks": False})) == 1


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4-5", "bedrock/amazon.titan-embed-text-v2:0"])
def test_a_chain_that_can_make_no_embeddings_is_refused_when_it_is_submitted(model: str) -> None:
    with pytest.raises(RequestError, match="cannot make embeddings"):
        steps({"model": model})


def read(tmp_path: Path, *lines: dict[str, Any], shape: Shape | None = None) -> list[NewJob | BadLine]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return list(read_jobs(path, JobReader(shape or Shape(), SETTINGS, expires_at=1.0)))


def line(custom_id: str, url: str = "/v1/embeddings", **body: Any) -> dict[str, Any]:
    given = {"model": "small", "input": "some text", **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": given}


def test_an_input_is_for_the_endpoint_of_its_first_line(tmp_path: Path) -> None:
    first, second = read(tmp_path, line("a"), line("b", input=["x", "y"], dimensions=64))
    assert isinstance(first, NewJob) and isinstance(second, NewJob)
    assert (first.chain.endpoint, first.chain.id, first.tokens) == (EMBEDDINGS, second.chain.id, 3)
    assert orjson.loads(second.body) == {"input": ["x", "y"], "dimensions": 64}


def test_an_input_with_two_endpoints_is_refused_by_line(tmp_path: Path) -> None:
    _, bad = read(tmp_path, line("a"), line("b", "/v1/chat/completions"))
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.param, bad.code) == (2, "url", "invalid_url")
    assert "/v1/embeddings" in bad.reason


def test_a_system_prompt_is_refused_where_it_has_no_meaning(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, line("a"), shape=Shape(system="Be brief."))
    assert isinstance(bad, BadLine) and "--system" in bad.reason
