"""Results as lines of JSON and CSV."""

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from understudy.models.jobs.views import OutputRow
from understudy.models.state import JobState
from understudy.producer.ingest.decoding import InputError
from understudy.producer.runs.output import (
    check_suffix,
    completion_text,
    csv_row,
    error_text,
    output_line,
    rendered_line,
    write_csv,
    write_jsonl,
)

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "yes, sir"}}]}


def row(state: JobState = JobState.SUCCEEDED, **fields: Any) -> OutputRow:
    known = {
        "job_id": "job_1",
        "custom_id": "r1",
        "line": 1,
        "status_code": 200 if state is JobState.SUCCEEDED else None,
        "body": json.dumps(ANSWER) if state is JobState.SUCCEEDED else None,
        "error": None,
        "provider": "lead",
        "model": "large",
        "cost_usd": 0.0000125,
        "extra": None,
    }
    return OutputRow(**{**known, "state": state, **fields})


async def rows(*given: OutputRow) -> AsyncIterator[OutputRow]:
    for each in given:
        yield each


def test_an_answer_is_a_line_of_a_batch_output() -> None:
    assert output_line(row()) == {
        "id": "batch_req_job_1",
        "custom_id": "r1",
        "response": {"status_code": 200, "request_id": "job_1", "body": ANSWER},
        "error": None,
    }


def test_a_providers_error_keeps_its_status_and_body() -> None:
    body = {"error": {"message": "no", "code": "bad"}}
    line = output_line(row(JobState.FAILED, status_code=400, body=json.dumps(body)))
    assert (line["response"]["status_code"], line["response"]["body"], line["error"]) == (400, body, None)
    assert error_text(line) == "no"


def test_an_error_without_http_answer_is_in_the_error() -> None:
    line = output_line(row(JobState.FAILED, error={"code": "connect", "message": "no connection"}))
    assert (line["response"], error_text(line)) == (None, "no connection")


def test_cancelled_and_expired_lines_carry_the_codes_of_a_batch() -> None:
    codes = {state: output_line(row(state))["error"]["code"] for state in (JobState.CANCELLED, JobState.EXPIRED)}
    assert codes == {JobState.CANCELLED: "batch_cancelled", JobState.EXPIRED: "batch_expired"}


def test_a_failure_without_any_record_still_says_something() -> None:
    assert error_text(output_line(row(JobState.FAILED))) == "This request failed, and the reason was not recorded."


def test_an_error_body_of_an_odd_shape_is_shown_by_its_status_or_its_text() -> None:
    for body, said in (("null", "HTTP 502"), ("[]", "HTTP 502"), ('{"error":"down"}', "down")):
        assert error_text(output_line(row(JobState.FAILED, status_code=502, body=body))) == said


def test_the_text_of_an_answer_is_its_content_its_tool_calls_or_its_refusal() -> None:
    def said(**message: Any) -> str:
        return completion_text({"choices": [{"message": message}]})

    assert said(content="yes") == "yes"
    assert said(content=None, tool_calls=[{"id": "c"}]) == '[{"id":"c"}]'
    assert said(content=None, refusal="no") == "no"
    assert completion_text({"choices": []}) == completion_text(None) == ""


def test_a_csv_row_has_the_columns_of_the_input_and_of_the_answer() -> None:
    cut = {"choices": [{**ANSWER["choices"][0], "finish_reason": "length"}]}
    assert csv_row(row(extra='{"sku":"A7"}', body=json.dumps(cut))) == {
        "sku": "A7",
        "completion": "yes, sir",
        "finish_reason": "length",
        "provider": "lead",
        "model": "large",
        "cost_usd": "0.0000125",
        "error": "",
    }


def test_a_cost_that_is_not_known_is_left_empty() -> None:
    assert csv_row(row(cost_usd=None))["cost_usd"] == "" and csv_row(row(cost_usd=0.0))["cost_usd"] == "0"


def test_a_column_of_the_input_is_not_overwritten_by_one_of_ours() -> None:
    columns = csv_row(row(extra='{"model":"T-34","error":"none"}'))
    assert (columns["model"], columns["answer_model"]) == ("T-34", "large")
    assert (columns["error"], columns["answer_error"]) == ("none", "")


def test_an_output_that_becomes_an_input_again_and_again_keeps_every_column() -> None:
    columns: dict[str, Any] = {"sku": "A7"}
    for text in ("first", "second", "third"):
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
        columns = csv_row(row(extra=json.dumps(columns), body=body))
    texts = [value for name, value in columns.items() if name.endswith("completion")]
    assert texts == ["first", "second", "third"]


@pytest.mark.parametrize("name", ["out.xlsx", "out.parquet", "out.json", "out.csv.gz", "out", ".csv"])
def test_a_name_that_promises_another_format_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"unsupported output format; use \.jsonl, \.ndjson, \.csv or \.tsv"):
        check_suffix(Path(name))


@pytest.mark.parametrize("name", ["out.jsonl", "out.ndjson", "out.CSV", "out.tsv"])
def test_a_name_of_a_format_that_is_written_is_taken(name: str) -> None:
    check_suffix(Path(name))


async def test_csv_has_a_header_quotes_and_an_error_column() -> None:
    stream = io.StringIO(newline="")
    count = await write_csv(rows(row(), row(JobState.EXPIRED, custom_id="r2")), stream)
    first, second = csv.DictReader(io.StringIO(stream.getvalue()))
    assert count == 2
    assert (first["custom_id"], first["completion"], first["error"]) == ("r1", "yes, sir", "")
    assert (second["custom_id"], second["completion"]) == ("r2", "")
    assert "deadline" in second["error"]


async def test_json_lines_are_one_object_each() -> None:
    stream = io.StringIO()
    assert await write_jsonl(rows(row(), row(custom_id="r2")), stream) == 2
    assert [json.loads(line)["custom_id"] for line in stream.getvalue().splitlines()] == ["r1", "r2"]


LARGE = {"id": 2**53 + 1, "text": 'é\u2028\n\t"\\ \U0001f600', "list": [1.5, None, True, {}], "odd": {"a": 1e300}}


@pytest.mark.parametrize(
    "given",
    [
        row(),
        row(body=orjson.dumps(LARGE).decode()),
        row(custom_id='é"\\\n\u2028'),
        row(body=None),
        row(body=""),
        row(body=json.dumps(LARGE, indent=1)),
        row(JobState.FAILED, status_code=429, body='{"error":{"message":"slow down"}}'),
        row(JobState.FAILED, error={"code": "no_answer", "message": "é"}),
        row(JobState.FAILED),
        row(JobState.CANCELLED),
        row(JobState.EXPIRED, body='{"left":"over"}'),
    ],
)
def test_a_line_is_written_with_the_stored_answer_as_it_would_be_without(given: OutputRow) -> None:
    line = rendered_line(given)
    assert orjson.loads(line) == output_line(given)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    if given.body and given.body == orjson.dumps(orjson.loads(given.body)).decode():
        assert line == orjson.dumps(output_line(given)) + b"\n"
