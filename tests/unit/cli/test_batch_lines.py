"""Lines of an OpenAI batch file: strict, counted, and never more memory than one line."""

import gzip
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.routing.request_options import RouteOptions
from understudy.producer.ingest import batch_lines
from understudy.producer.ingest.batch_lines import MAX_ERRORS, BatchReader, LineSplitter
from understudy.producer.ingest.intake import FirstLines

CHAT = "/v1/chat/completions"
SETTINGS = Settings.model_validate({"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
BODY = {"model": "lead/large", "messages": [{"role": "user", "content": "hello"}]}


def line(**words: Any) -> bytes:
    document = {"custom_id": "r1", "method": "POST", "url": CHAT, "body": BODY, **words}
    return orjson.dumps({key: value for key, value in document.items() if value is not ...})


def read(*chunks: bytes, **words: Any) -> tuple[list[NewJob], BatchReader]:
    reader = BatchReader(SETTINGS, CHAT, RouteOptions(), **words)
    jobs = [job for chunk in chunks for job in reader.read(chunk)]
    return jobs + reader.finish(), reader


def errors_of(*chunks: bytes) -> list[tuple[str, str | None, int | None]]:
    jobs, reader = read(*chunks)
    assert not jobs
    return [(error.code, error.param, error.line) for error in reader.errors]


def in_pieces(content: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_lines_are_found_whatever_the_chunks_ends_blanks_and_byte_order_mark(
    size: int, end: bytes, last: bytes
) -> None:
    lines = [line(custom_id=f"r{number}") for number in range(3)]
    content = b"\xef\xbb\xbf" + lines[0] + end + end + lines[1] + end + b"  " + end + lines[2] + last
    jobs, reader = read(*in_pieces(content, size))
    assert reader.errors == []
    assert [(job.custom_id, job.line) for job in jobs] == [("r0", 1), ("r1", 3), ("r2", 5)]
    assert reader.total == 3
    assert orjson.loads(jobs[0].body) == {"messages": BODY["messages"]}


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b'{"custom_id": NaN}', "invalid_json_line", None),
        (line(body=...).replace(b"}", b',"body":{"x":"\\ud800"}}'), "invalid_json_line", None),
        (b'{"body":' * 2_000 + b"1" + b"}" * 2_000, "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (line().replace(b"hello", b"\xff"), "invalid_json_line", None),
        (line(custom_id=...), "missing_required_parameter", "custom_id"),
        (line(method=...), "missing_required_parameter", "method"),
        (line(url=...), "missing_required_parameter", "url"),
        (line(body=...), "missing_required_parameter", "body"),
        (line(custom_id=None), "missing_required_parameter", "custom_id"),
        (line(custom_id=7), "invalid_type", "custom_id"),
        (line(custom_id=""), "invalid_request", "custom_id"),
        (line(custom_id="a\0b"), "invalid_request", "custom_id"),
        (line(custom_id="x" * 513), "invalid_request", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "invalid_url", "url"),
        (b'{"prompt": "hello"}', "missing_required_parameter", "body"),
        (b'{"custom_id": "r1", "messages": []}', "missing_required_parameter", "body"),
        (line(body="{}"), "invalid_type", "body"),
        (line(body={"model": "lead/large"}), "missing_required_parameter", "body.messages"),
        (line(body={**BODY, "model": "nobody/large"}), "invalid_request", "body.model"),
        (line(body={**BODY, "messages": []}), "invalid_request", "body.messages"),
        (line(body={**BODY, "stream": True}), "invalid_request", "body.stream"),
        (line(body={**BODY, "forbids": {"region": "us"}}), "invalid_request", "body.forbids"),
        (line(forbid={"region": "us"}), "invalid_request", "forbid"),
        (line(body={"model": "lead/large", "prompt": "of ours"}), "missing_required_parameter", "body.messages"),
    ],
)
def test_a_bad_line_is_named_with_code_and_field(bad: bytes, code: str, param: str | None) -> None:
    assert errors_of(line(custom_id="good") + b"\n" + bad + b"\n") == [(code, param, 2)]


def test_a_prompt_without_a_frame_is_told_at_once_what_a_line_looks_like() -> None:
    _, reader = read(b'{"prompt": "hello"}')
    assert '{"custom_id": "…", "method": "POST", "url": "/v1/chat/completions", "body":' in reader.errors[0].message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(line()), "is compressed with gzip; upload it unpacked"),
        (b"PK\x03\x04\xff" + line(), "is a zip archive; unpack it first"),
        (
            "\ufeff".encode("utf-16-le") + line().decode().encode("utf-16-le"),
            "is UTF-16 or UTF-32 text; save it as UTF-8",
        ),
        (line().replace(b"hello", b"\xff"), "not UTF-8 text"),
    ],
)
def test_a_file_that_is_not_utf8_text_is_called_by_its_name(content: bytes, said: str) -> None:
    _, reader = read(content)
    assert said in reader.errors[0].message


def test_a_file_that_was_written_for_azure_is_read() -> None:
    jobs, reader = read(line(url="/chat/completions"))
    assert (len(jobs), reader.errors) == (1, [])


def test_a_repeated_id_names_the_earlier_line() -> None:
    _, reader = read(line() + b"\n" + line(custom_id="r2") + b"\n" + line())
    [error] = reader.errors
    assert (error.code, error.param, error.line) == ("duplicate_custom_id", "custom_id", 3)
    assert "on line 1" in error.message


def test_a_hundred_errors_are_enough() -> None:
    _, reader = read(b"{\n" * 5_000)
    assert reader.full and len(reader.errors) == MAX_ERRORS


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf"])
def test_a_file_without_lines_is_an_error_without_a_line(content: bytes) -> None:
    assert errors_of(content) == [("empty_file", None, None)]


def test_after_an_error_nothing_is_handed_out_although_lines_are_still_checked() -> None:
    jobs, reader = read(line() + b"\n{\n" + line(custom_id="r3") + b"\n[]\n")
    assert jobs == []
    assert [error.line for error in reader.errors] == [2, 4]


def test_lines_that_are_written_already_are_counted_and_checked_but_not_made_again() -> None:
    content = b"\n".join(line(custom_id=f"r{number}") for number in range(5))
    jobs, reader = read(content, written_lines=3)
    assert ([job.line for job in jobs], reader.total) == ([4, 5], 5)
    _, reader = read(content + b"\n" + line(custom_id="r0"), written_lines=3)
    assert [error.code for error in reader.errors] == ["duplicate_custom_id"]


def test_a_line_of_a_hundred_megabytes_passes_through_flat_memory() -> None:
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    reader = BatchReader(SETTINGS, CHAT, RouteOptions())
    for _ in range(100):
        reader.read(chunk)
    jobs = reader.read(b"\n" + line() + b"\n")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert jobs == [] and reader.total == 1
    assert [(error.code, error.line) for error in reader.errors] == [("line_too_long", 1)]
    assert peak < 3 * batch_lines.LINE_MAX_BYTES


def test_the_splitter_says_which_line_was_too_long() -> None:
    splitter = LineSplitter(max_bytes=4)
    assert list(splitter.feed(b"ab\nabcde\nabcd\nabc")) == [(1, b"ab"), (2, None), (3, b"abcd")]
    assert list(splitter.feed(b"defg")) == []
    assert list(splitter.end()) == [(4, None)]


def test_first_lines_are_remembered_while_the_table_grows() -> None:
    seen = FirstLines()
    assert [seen.first(f"id-{number}", number) for number in range(50_000)] == list(range(50_000))
    assert [seen.first(f"id-{number}", 99_999) for number in range(50_000)] == list(range(50_000))
