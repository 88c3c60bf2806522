"""Embeddings over HTTP with the official SDK, against a real server, real workers and fake providers."""

import base64
import csv
import json
import struct
from collections.abc import Callable
from typing import Any

import openai
import pytest
from stage_hands import BIN, Mock, Scene, alone_and_on_servers, until
from test_openai_sdk import ENDED, read, sdk, upload

from understudy.worker.mock.bodies import vector

pytestmark = pytest.mark.timeout(400)

EMBEDDINGS = "/v1/embeddings"
GEMINI = """
[providers.gamma]
kind = "gemini"
base_url = "{mock}/gamma/v1beta"
api_keys = [{{ name = "main", value = "env.ALPHA_KEY" }}]
"""
TEXTS = ["a walnut desk", "a brass lamp"]


def line(custom_id: str, model: str, **words: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": EMBEDDINGS,
        "body": {"model": model, "input": custom_id, **words},
    }


def as_lines(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


@pytest.mark.slow
@alone_and_on_servers
def test_the_sdk_gets_vectors_from_either_protocol_and_errors_with_their_status(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers('[[rules]]\nmodel = "refuses"\nfail = "bad_request"\n')
    scene.configure(mock, more=GEMINI.format(mock=mock.url))
    _, url = scene.serve()
    with sdk(url) as client:
        for model in ("alpha/m", "gamma/m"):
            made = client.embeddings.create(model=model, input=TEXTS)
            size = len(made.data[0].embedding)
            assert [each.embedding for each in made.data] == [
                pytest.approx(vector(text, size), abs=1e-6) for text in TEXTS
            ]
        floats = client.embeddings.create(model="alpha/m", input=TEXTS[0], encoding_format="float")
        assert floats.data[0].embedding == pytest.approx(vector(TEXTS[0], size), abs=1e-6)
        raw: Any = client.post(
            "/embeddings", cast_to=object, body={"model": "gamma/m", "input": "x", "encoding_format": "base64"}
        )
        packed = base64.b64decode(raw["data"][0]["embedding"])
        assert struct.unpack(f"<{size}f", packed) == pytest.approx(vector("x", size), abs=1e-6)
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="alpha/refuses", input="x")
        with pytest.raises(openai.BadRequestError, match="cannot be mixed"):
            client.embeddings.create(model="alpha/m", input="x", extra_body={"fallbacks": ["gamma/other"]})


@pytest.mark.slow
@alone_and_on_servers
def test_a_batch_of_embeddings_falls_back_within_its_family_only(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers('[[rules]]\nprovider = "alpha"\nfail = "server"\n')
    scene.configure(mock, more=GEMINI.format(mock=mock.url))
    _, url = scene.serve()
    with sdk(url) as client:
        good = upload(client, as_lines(line("a", "alpha/m", fallbacks=["gamma/m"]), line("b", "gamma/m")))
        batch = client.batches.create(input_file_id=good, endpoint=EMBEDDINGS, completion_window="24h")
        until(lambda: client.batches.retrieve(batch.id).status in ENDED, "the batch ends")
        batch = client.batches.retrieve(batch.id)
        vectors = {each["custom_id"]: each["response"]["body"] for each in read(client, batch.output_file_id)}
        assert batch.endpoint == EMBEDDINGS and set(vectors) == {"a", "b"}
        for text, body in vectors.items():
            assert body["data"][0]["embedding"] == pytest.approx(
                vector(text, len(body["data"][0]["embedding"])), abs=1e-6
            )
        assert vectors["a"]["extra_fields"]["provider"] == "gamma"
        mixed = upload(client, as_lines(line("a", "alpha/m"), line("b", "alpha/m", fallbacks=["gamma/other"])))
        refused = client.batches.create(input_file_id=mixed, endpoint=EMBEDDINGS, completion_window="24h")
        until(lambda: client.batches.retrieve(refused.id).status in ENDED, "the mixed batch ends")
        refused = client.batches.retrieve(refused.id)
        assert refused.status == "failed" and refused.errors and refused.errors.data
        assert [(each.line, each.code) for each in refused.errors.data] == [(2, "mixed_model_families")]


@pytest.mark.slow
def test_a_run_of_embeddings_writes_vectors_and_its_batch_says_what_it_is(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers('[[rules]]\nmodel = "broken"\nfail = "server"\n'))
    source = scene.folder / "in.jsonl"
    source.write_bytes(as_lines(line("a", "alpha/m"), line("b", "beta/m")))
    output = scene.folder / "out.csv"
    run = scene.start(BIN / "understudy", "run", source, "-o", output)
    assert run.exit_code() == 0, run.said
    with output.open(newline="") as stream:
        rows = {row["custom_id"]: json.loads(row["completion"]) for row in csv.DictReader(stream)}
    assert rows["a"] == pytest.approx(vector("a", len(rows["a"])), abs=1e-6)
    assert [row.endpoint for row in scene.ledger.rows("SELECT endpoint FROM batch")] == [EMBEDDINGS]
