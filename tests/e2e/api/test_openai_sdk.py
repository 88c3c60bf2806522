"""The official OpenAI SDK, with only its base_url changed, against a real server with real workers and fake
providers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch
from stage_hands import Mock, Scene, alone_and_on_servers, until

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

CHAT = "/v1/chat/completions"
SLOW = "[answers]\nlatency_s = 1.0\n"
REFUSES_ITS_OWN = '[[rules]]\nmodel = "refuses"\nfail = "bad_request"\n'
ENDED = ("completed", "failed", "expired", "cancelled")


@contextmanager
def sdk(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none is needed on this machine") as client:
        yield client


def lines(count: int, model: str = "alpha/m", first: int = 0) -> bytes:
    asked = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": CHAT,
            "body": {"model": model, "messages": [{"role": "user", "content": f"prompt {number}"}]},
        }
        for number in range(first, first + count)
    ]
    return b"".join(json.dumps(each).encode() + b"\n" for each in asked)


def upload(client: OpenAI, content: bytes) -> str:
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def create(client: OpenAI, content: bytes, window: str = "24h", **words: Any) -> Batch:
    asked: Any = {"completion_window": window, **words}
    return client.batches.create(input_file_id=upload(client, content), endpoint=CHAT, **asked)


def ended(client: OpenAI, batch_id: str) -> Batch:
    def look() -> Batch | None:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in ENDED else None

    found: Batch = until(look, "the batch ends")
    return found


def read(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def all_lines_once(client: OpenAI, batch: Batch, total: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Output and error lines; together every line, once."""
    output, errors = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert sorted(line["custom_id"] for line in output + errors) == sorted(f"r{number}" for number in range(total))
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (total, len(output), len(errors))
    return output, errors


@alone_and_on_servers
def test_upload_create_retrieve_download_list_and_delete(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(REFUSES_ITS_OWN))
    _, url = scene.serve("up")
    with sdk(url) as client:
        content = lines(40) + lines(10, model="alpha/refuses", first=40)
        batch = create(client, content, metadata={"project": "poems"}, extra_body={"fallbacks": ["beta/m"]})
        assert (batch.status, batch.metadata) == ("validating", {"project": "poems"})
        batch = ended(client, batch.id)
        assert batch.status == "completed" and batch.errors is None
        assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.completed_at or 0)
        output, errors = all_lines_once(client, batch, 50)
        assert (len(output), len(errors)) == (40, 10)
        assert all(line["error"] is None and line["response"]["status_code"] == 200 for line in output)
        assert output[0]["response"]["body"]["choices"][0]["message"]["content"]
        assert all(line["error"] is None and line["response"]["status_code"] == 400 for line in errors)
        assert batch.usage is not None and batch.usage.total_tokens > 0
        assert batch.usage.input_tokens_details.cached_tokens == 0

        others = [create(client, lines(1)).id for _ in range(4)]
        listed = [each.id for each in client.batches.list(limit=2)]
        assert listed == [*others[::-1], batch.id]

        deleted = client.files.delete(batch.output_file_id or "")
        assert deleted.deleted
        with pytest.raises(openai.NotFoundError):
            client.files.content(batch.output_file_id or "")
        assert client.batches.retrieve(batch.id).output_file_id is None


@alone_and_on_servers
def test_a_bad_file_fails_with_errors_by_line(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    _, url = scene.serve("up")
    with sdk(url) as client:
        batch = ended(client, create(client, lines(3) + b"no json\n" + lines(1)).id)
        assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
        found = [(error.code, error.line, error.param) for error in batch.errors.data]
        assert found == [("invalid_json_line", 4, None), ("duplicate_custom_id", 5, "custom_id")]
        assert scene.ledger.count("job") == 0
        with pytest.raises(openai.BadRequestError, match="/v1/responses") as refused:
            client.batches.create(
                input_file_id=upload(client, lines(1)), endpoint="/v1/responses", completion_window="24h"
            )
        assert (refused.value.param, refused.value.code) == ("endpoint", "unsupported_endpoint")


@pytest.mark.slow
@alone_and_on_servers
def test_cancelled_half_way_every_line_is_in_one_of_the_files(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=10)
    _, url = scene.serve("up")
    with sdk(url) as client:
        batch = create(client, lines(200))
        until(lambda: mock.answered() >= 20, "some are answered")
        assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
        batch = ended(client, batch.id)
        assert batch.status == "cancelled" and batch.cancelling_at and batch.cancelled_at
        output, errors = all_lines_once(client, batch, 200)
        assert output and errors
        assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}


@pytest.mark.slow
@alone_and_on_servers
def test_expired_half_way_every_line_is_in_one_of_the_files(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=10)
    _, url = scene.serve("up")
    with sdk(url) as client:
        batch = create(client, lines(2_000), window="1m")
        until(lambda: mock.answered() >= 20, "some are answered")
        # instead of waiting for the shortest window
        scene.ledger.change("UPDATE batch SET expires_at = created_at WHERE id = :id", id=batch.id)
        batch = ended(client, batch.id)
        assert batch.status == "expired" and batch.expired_at
        output, errors = all_lines_once(client, batch, 2_000)
        assert output and errors
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}


@alone_and_on_servers
@pytest.mark.slow
def test_a_server_killed_while_it_fills_is_followed_by_another(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    server, url = scene.serve("up")
    with sdk(url) as client:
        batch_id = create(client, lines(60_000)).id
        server.until(lambda: scene.ledger.count("job") > 2_000, "some lines are written")
        server.kill_all()
    assert scene.ledger.rows("SELECT state FROM batch")[0].state == "validating"
    written = scene.ledger.count("job")
    _, url = scene.serve("up")
    with sdk(url) as client:
        until(lambda: client.batches.retrieve(batch_id).status != "validating", "the batch is filled", 120.0)
        assert client.batches.retrieve(batch_id).status == "in_progress"
        assert 2_000 < written < 60_000
        assert scene.ledger.count("job") == 60_000
        assert len(scene.ledger.rows("SELECT DISTINCT line FROM job")) == 60_000
        client.batches.cancel(batch_id)
