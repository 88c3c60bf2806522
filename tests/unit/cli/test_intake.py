"""Inputs of every shape become jobs; for everything that cannot, the error gives line and reason."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import Priority
from understudy.producer.ingest import input_rows
from understudy.producer.ingest.csv_input import Template
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ingest.intake import BadLine, JobReader, read_jobs, request_of

SETTINGS = Settings.model_validate(
    {
        "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
        "chains": {"default": {"steps": ["lead/large"]}, "cheap": {"steps": ["lead/small"]}},
    }
)


def read(tmp_path: Path, content: str | bytes, shape: Shape | None = None, name: str = "in.jsonl") -> list[Any]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_jobs(path, JobReader(shape or Shape(), SETTINGS, expires_at=9.0)))


def only(tmp_path: Path, content: str | bytes, shape: Shape | None = None, name: str = "in.jsonl") -> NewJob:
    (job,) = read(tmp_path, content, shape, name)
    assert isinstance(job, NewJob), job
    return job


def refused(tmp_path: Path, content: str | bytes, shape: Shape | None = None) -> str:
    (bad,) = read(tmp_path, content, shape)
    assert isinstance(bad, BadLine), bad
    return bad.reason


def messages(job: NewJob) -> list[tuple[str, str]]:
    return [(each["role"], each["content"]) for each in json.loads(job.body)["messages"]]


BODY = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}


def test_a_batch_line_keeps_its_custom_id_and_loses_the_words_that_are_ours(tmp_path: Path) -> None:
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": {**BODY, "chain": "cheap"}}
    job = only(tmp_path, json.dumps(line))
    assert (job.custom_id, job.line, job.expires_at, job.priority) == ("r1", 1, 9.0, Priority.BULK)
    assert json.loads(job.body) == BODY
    assert [str(step) for step in job.chain.steps] == ["lead/small"]


def test_a_bare_body_is_named_after_its_line(tmp_path: Path) -> None:
    job = only(tmp_path, "\n\n" + json.dumps(BODY))
    assert (job.custom_id, job.line) == ("3", 3)
    assert json.loads(job.body) == BODY


def test_a_prompt_becomes_messages_and_keeps_its_parameters(tmp_path: Path) -> None:
    job = only(tmp_path, '{"id": 7, "prompt": "hi", "system": "be brief", "max_tokens": 5}')
    assert job.custom_id == "7"
    assert messages(job) == [("system", "be brief"), ("user", "hi")]
    assert json.loads(job.body)["max_tokens"] == 5


def test_parameters_of_the_command_are_for_lines_that_do_not_say_them_themselves(tmp_path: Path) -> None:
    shape = Shape(params={"max_tokens": 80, "temperature": 0, "seed": 7})
    plain, own, renamed = read(
        tmp_path,
        '{"prompt":"a"}\n{"prompt":"a","temperature":1}\n{"prompt":"a","max_completion_tokens":9}\n',
        shape,
    )
    bodies = [{**json.loads(job.body), "messages": None} for job in (plain, own, renamed)]
    assert bodies == [
        {"messages": None, "max_tokens": 80, "temperature": 0, "seed": 7},
        {"messages": None, "max_tokens": 80, "temperature": 1, "seed": 7},
        {"messages": None, "max_completion_tokens": 9, "temperature": 0, "seed": 7},
    ]
    assert [job.max_output_tokens for job in (plain, renamed)] == [80, 9]


def test_a_parameter_of_the_command_is_checked_like_one_of_a_line(tmp_path: Path) -> None:
    (bad,) = read(tmp_path, '{"prompt":"a"}', Shape(params={"top_p": "much"}))
    assert bad.reason == "'top_p' must be a number"


def test_fields_next_to_a_prompt_that_are_not_parameters_are_reported_before_they_are_sent(tmp_path: Path) -> None:
    path, notes = tmp_path / "in.jsonl", list[str]()
    path.write_text(
        '{"id":1,"prompt":"a","system":"b","max_tokens":5,"chain":"cheap","sku":"A1","top_k":3}\n'
        '{"prompt":"b","sku":"A2","shelf":7}\n'
    )
    jobs = list(read_jobs(path, JobReader(Shape(), SETTINGS, expires_at=9.0), notes))
    assert json.loads(jobs[0].body)["sku"] == "A1"
    assert notes == [
        "2 lines have a field 'sku', which is sent as a parameter; providers reject unknown parameters",
        "1 line has a field 'shelf', which is sent as a parameter; providers reject unknown parameters",
    ]


def test_the_system_option_stands_before_every_request(tmp_path: Path) -> None:
    job = only(tmp_path, json.dumps(BODY), Shape(system="be kind"))
    assert messages(job) == [("system", "be kind"), ("user", "hi")]


def test_byte_order_mark_windows_line_ends_and_empty_lines_are_accepted(tmp_path: Path) -> None:
    jobs = read(tmp_path, b'\xef\xbb\xbf{"prompt":"a"}\r\n\r\n{"prompt":"b"}\r\n')
    assert [(job.line, messages(job)) for job in jobs] == [(1, [("user", "a")]), (3, [("user", "b")])]


def test_an_empty_input_has_no_lines(tmp_path: Path) -> None:
    assert read(tmp_path, "") == []


def test_only_the_first_lines_are_taken(tmp_path: Path) -> None:
    assert [job.line for job in read(tmp_path, '{"prompt":"a"}\n' * 5, Shape(limit=2))] == [1, 2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{oops", "is not valid JSON"),
        ("[1]", "must be a JSON object, not an array"),
        ('{"promt": "a"}', "has neither 'prompt' nor 'messages'; it has 'promt'"),
        ('{"custom_id": "a", "params": {}}', "'params' of Anthropic's batches corresponds to 'body' here"),
        ('{"id": 1, "question": "a", "answer": "b", "a b": 1}', "nor 'messages'; it has 'question', 'answer'"),
        ('{"messages": []}', "'messages' must be a list with at least one message"),
        ('{"messages": 5}', "'messages' must be a list"),
        ('{"prompt": 5}', "must be strings"),
        ('{"prompt": null}', "must be strings"),
        ('{"prompt": "a", "system": 5}', "must be strings"),
        ('{"body": "text"}', "body must be an object"),
        ('{"url": "/v1/completions", "body": {}}', "only POST /v1/chat/completions"),
        ('{"method": "GET", "body": {}}', "only POST /v1/chat/completions"),
        ('{"prompt": "a", "chain": "cheep"}', "unknown chain 'cheep'; did you mean 'cheap'?"),
        ('{"prompt": "a", "model": "leed/large"}', "did you mean 'lead'?"),
        ('{"prompt": "a", "requires": {"region": "eu"}}', "unknown field 'requires'; did you mean 'require'?"),
        ('{"body": {"prompt": "a"}, "require": {"region": "eu"}}', "'require' belongs in 'body'"),
        ('{"prompt": "a", "fallbacks": "lead/large"}', "'fallbacks' must be a list"),
        ('{"prompt": "a", "stream": true}', "'stream' must be false"),
        ('{"prompt": "a", "custom_id": ""}', "1 to 512 characters"),
        (f'{{"prompt": "a", "custom_id": "{"x" * 513}"}}', "custom_id must have 1 to 512 characters"),
        ('{"prompt": "a", "custom_id": {"a": 1}}', "custom_id must be a string"),
        ('{"prompt": "a", "custom_id": true}', "custom_id must be a string"),
        ('{"prompt": "a", "custom_id": "a\\u0000"}', "none of them NUL"),
        ('{"prompt": "\\ud800"}', "is not valid JSON"),
        ('{"prompt": "a", "x": ' + '{"a":' * 300 + "1" + "}" * 301, "cannot be written as JSON"),
    ],
)
def test_a_bad_line_is_refused_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    assert reason in refused(tmp_path, line)


@pytest.mark.parametrize("wrong", ['{"messages": 5}', '{"messages": null}', '{"messages": "hi"}'])
def test_the_system_option_hides_no_bad_messages(tmp_path: Path, wrong: str) -> None:
    assert "'messages' must be a list" in refused(tmp_path, wrong, Shape(system="be kind"))


def test_a_json_line_that_is_not_utf8_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    first, second, third = read(
        tmp_path, '{"prompt":"é"}\n'.encode() + '{"prompt":"é"}\n{"prompt":"a"}'.encode("latin-1")
    )
    assert second == BadLine(2, "not UTF-8 text; convert the file first, e.g. with iconv")
    assert [messages(job) for job in (first, third)] == [[("user", "é")], [("user", "a")]]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_json_lines_are_read_in_any_encoding_that_a_byte_order_mark_names(tmp_path: Path, encoding: str) -> None:
    jobs = read(tmp_path, '\ufeff{"prompt":"é\u2028😀"}\r\n\r\n{"prompt":"b"}\r\n'.encode(encoding))
    assert [(job.line, messages(job)) for job in jobs] == [(1, [("user", "é\u2028😀")]), (3, [("user", "b")])]


def test_a_line_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    lines = "\ufeff" + '{"prompt":"a"}\n' * 5_000
    with pytest.raises(InputError, match="line 5001 is not valid UTF-16"):
        read(tmp_path, lines.encode("utf-16-le") + b"\x00\xdc" + '\n{"prompt":"b"}'.encode("utf-16-le"))


def test_what_was_compressed_with_gzip_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"prompt":"a"}\n{"prompt":"b"}\n' * 100)
    assert len(read(tmp_path, packed, name="in.jsonl.gz")) == 200
    job = only(tmp_path, gzip.compress(b"name\npan\n"), Shape(prompt="{name}"), "in.csv.gz")
    assert messages(job) == [("user", "pan")]
    with pytest.raises(InputError, match="is a damaged or truncated gzip file"):
        read(tmp_path, packed[:-20], name="in.jsonl.gz")


@pytest.mark.parametrize(
    ("start", "name", "said"),
    [
        (
            b"PK\x03\x04\x14\0",
            "in.xlsx",
            "is a spreadsheet, not a text file; open it in Excel, save it as 'CSV UTF-8'",
        ),
        (b"PK\x03\x04\x14\0", "in.csv", "is a zip archive; unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "in.csv", "an Excel workbook in the old .xls format"),
        (b"PAR1\x15\x04", "in.parquet", "is a Parquet file; convert it to JSON lines or CSV"),
        (b"BZh91AY&SY", "in.jsonl.bz2", "is compressed with bzip2; unpack it"),
        (
            '{"prompt":"a"}'.encode("utf-16-le"),
            "in.jsonl",
            "contains NUL characters; if it is UTF-16, save it as UTF-8",
        ),
        (
            b"Write a poem.\nWrite a song.\n",
            "in.txt",
            'each line must be an object such as {"prompt": "…"}; for a table',
        ),
        (b'[{"prompt":"a"},', "in.json", "is a JSON array; write each object on its own line"),
        (b'[\n  {"prompt":"a"}\n]', "in.jsonl", "is a JSON array"),
        (b'{\n  "prompt": "a"\n}', "in.jsonl", "is JSON spread over several lines; write each object on one line"),
    ],
)
def test_what_is_not_lines_of_text_is_called_by_its_name(tmp_path: Path, start: bytes, name: str, said: str) -> None:
    shape = Shape(prompt="{a}") if name.endswith("csv") else Shape()
    with pytest.raises(InputError, match=re.escape(said)):
        read(tmp_path, start, shape, name)


def test_a_custom_id_used_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    lines = '{"id":"x","prompt":"a"}\n{"id":"y","prompt":"a"}\n{"id":"x","prompt":"b"}\n'
    first, second, third = read(tmp_path, lines)
    assert isinstance(first, NewJob) and isinstance(second, NewJob)
    assert third == BadLine(
        3, "custom_id 'x' was already used on line 1", code="duplicate_custom_id", param="custom_id"
    )


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_rows, "LINE_MAX_BYTES", 1024 * 1024)
    long, short = read(tmp_path, '{"prompt":"' + "a" * 3_000_000 + '"}\n{"prompt":"b"}')
    assert long == BadLine(1, "longer than 1 MiB")
    assert (short.line, messages(short)) == (2, [("user", "b")])


def test_the_csv_template_is_filled_and_the_row_is_kept(tmp_path: Path) -> None:
    shape = Shape(prompt="{{Describe}} {name} in {the:colour}", id_column="sku", route=RouteOptions(chain="cheap"))
    job = only(tmp_path, '﻿sku,name,the:colour\r\n\r\nA7,"pan, big",re{d}\r\n', shape, "in.csv")
    assert messages(job) == [("user", "{Describe} pan, big in re{d}")]
    assert job.custom_id == "A7"
    assert json.loads(job.extra or "") == {"sku": "A7", "name": "pan, big", "the:colour": "re{d}"}


def test_long_csv_cells_are_read(tmp_path: Path) -> None:
    job = only(tmp_path, f"text\n{'a' * 200_000}\n", Shape(prompt="{text}"), "in.csv")
    assert len(messages(job)[0][1]) == 200_000


def test_csv_rows_with_other_columns_or_without_an_id_are_bad_lines(tmp_path: Path) -> None:
    shape = Shape(prompt="{name}", id_column="id")
    short, long, nameless, good = read(tmp_path, "id,name\n1\n1,2,3\n,b\n4,d\n", shape, "in.csv")
    assert (short, long) == (
        BadLine(2, "has 1 column, but the header has 2"),
        BadLine(3, "has 3 columns, but the header has 2"),
    )
    assert nameless.reason == "'id' must have 1 to 512 characters, none of them NUL"
    assert good.custom_id == "4"


@pytest.mark.parametrize(
    ("content", "shape", "reason"),
    [
        ("a,b\n", Shape(), "needs --prompt"),
        ("", Shape(prompt="{a}"), "the CSV is empty"),
        ("a,b\n1,2\n", Shape(prompt="{c}"), "the CSV has no column 'c'; it has a, b"),
        ("a,b\n1,2\n", Shape(prompt="{a!x}"), "no column 'a!x'"),
        ("a,b\n1,2\n", Shape(prompt="{a}", id_column="c"), "no column 'c'"),
        ("a,b\n1,2\n", Shape(prompt="Describe it"), "every row would get the same prompt"),
        ("a,b\n1,2\n", Shape(prompt="{a"), "--prompt is not a valid template"),
        ("a,a\n1,2\n", Shape(prompt="{a}"), "duplicate column name"),
        ("a,b\né,2\n".encode() + "é,3\n".encode("latin-1"), Shape(prompt="{a}"), "line 3 is not UTF-8 text"),
        (b"a,b\n1,2\n\x81,3\n", Shape(prompt="{a}"), "line 3 is not UTF-8 text"),
        (b"\xef\xbb\xbfa,b\n1,2\n\xe9,3\n", Shape(prompt="{a}"), "line 3 is not UTF-8 text"),
        ('a,b\n1,2\n"3,4\n5,6\n', Shape(prompt="{a}"), "a quote opened on line 3 or later is never closed"),
        ("Name,b\n1,2\n", Shape(prompt="{nmae}"), "it has Name, b; did you mean 'Name'?"),
        ("a,b\n1,2\n", Shape(prompt='{"text": {a}}'), "write a literal brace as"),
        ('a,b\n1,2\n"x"y,3\n4,5\n', Shape(prompt="{a}"), "line 3 and the rest cannot be read: invalid CSV"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_whole(
    tmp_path: Path, content: str | bytes, shape: Shape, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, content, shape, "in.csv")


@pytest.mark.parametrize("shape", [Shape(prompt="{a}"), Shape(id_column="a")])
def test_csv_options_are_not_silently_ignored_for_json_lines(tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(InputError, match="applies to CSV inputs"):
        read(tmp_path, '{"prompt":"a"}', shape)


def test_a_template_names_its_columns_as_they_are_written() -> None:
    assert Template.parse("{a.b} and {c[0]!r:>3}").columns == ["a.b", "c[0]!r:>3"]


def test_what_a_model_is_asked_has_a_name_that_says_nothing_of_who_is_asked(tmp_path: Path) -> None:
    def name(line: str, shape: Shape | None = None) -> str:
        [job] = read(tmp_path, line, shape or Shape(route=RouteOptions(model="lead/large")))
        assert isinstance(job, NewJob)
        return request_of(job)

    asked = name('{"messages":[{"role":"user","content":"a"}],"temperature":0}')
    assert name('{"id":"x","temperature":0,"prompt":"a"}') == asked
    assert name('{"prompt":"a","temperature":0,"model":"lead/other"}') == asked
    assert name('{"prompt":"a","temperature":1}') != asked
    assert name('{"prompt":"b","temperature":0}') != asked
    assert name('{"prompt":"a","temperature":0}', Shape(system="x", route=RouteOptions(model="lead/large"))) != asked


def test_options_that_are_not_text_are_rejected(tmp_path: Path) -> None:
    [bad] = read(tmp_path, '{"prompt":"a","model":"lead/large"}', Shape(system="\udce9"))
    assert isinstance(bad, BadLine)
    assert "cannot be written as JSON" in bad.reason
