"""The error of a failed job: one error in OpenAI's form, whichever step failed, with the words of every step."""

from typing import Any

import orjson
import pytest
from job_view_help import job_view

from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import AttemptRecord, StartedJob
from understudy.models.jobs.views import JobView, OutputRow
from understudy.models.jobs.wait_reasons import put_back_for
from understudy.models.objects.attempt import attempt_summary
from understudy.models.objects.job import error_of, extra_fields_of
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import JobState, Priority
from understudy.producer.runs.output import csv_row, output_line
from understudy.worker.job import outcome
from understudy.worker.job.progress import Passed, Progress

ONE = Chain(steps=(Step(provider="alpha", model="m"),))
TWO = Chain(steps=(Step(provider="alpha", model="m"), Step(provider="beta", model="n")))

FORMS: list[Any] = [
    {"error": {"message": "too long", "type": "invalid_request_error", "param": "max_tokens", "code": "too_long"}},
    {"object": "error", "message": "too long", "type": "invalid_request_error", "param": "max_tokens", "code": 3051},
    {"code": "Client specified an invalid argument", "error": "too long"},
    {"detail": [{"loc": ["body", "max_tokens"], "msg": "too long", "type": "value_error"}]},
    [{"error": {"code": 400, "message": "too long", "status": "INVALID_ARGUMENT"}}],
    {"message": "too long", "__type": "ValidationException"},
    "<html>too long</html>",
    None,
]


def error(cls: FailureClass, message: str, status: int | None = 400, body: Any = None) -> dict[str, Any]:
    return {"class": cls, "message": message, "status": status, "body": body}


def started() -> StartedJob:
    return StartedJob("job_1", "bat_1", "default", 1, TWO.id, Priority.BULK, body="{}", tokens=1, expires_at=1e12)


def written(progress: Progress, chain: Chain = TWO) -> OutputRow:
    """The failed job as an output reads it from the ledger."""
    settled = outcome.failed(started(), chain, progress, [])
    assert settled.state is JobState.FAILED and settled.result is not None
    record = settled.result
    return OutputRow(
        job_id="job_1",
        custom_id="r1",
        line=1,
        state=JobState.FAILED,
        status_code=record.status_code,
        body=record.body,
        error=None if record.error is None else orjson.loads(orjson.dumps(record.error)),
        provider=None,
        model=None,
        cost_usd=0.0,
        extra=None,
    )


def seen_over_http(row: OutputRow) -> JobView:
    return job_view(state=row.state, status_code=row.status_code, error_body=row.body, error=row.error)


@pytest.mark.parametrize("body", FORMS)
def test_an_error_line_has_openais_error_whatever_form_the_provider_gave_it(body: Any) -> None:
    row = written(Progress(errors={0: error(FailureClass.BAD_REQUEST, "too long", body=body)}), ONE)
    response = output_line(row)["response"]
    assert response["status_code"] == 400
    shown = response["body"]["error"]
    assert set(shown) == {"message", "type", "param", "code"}
    assert shown["message"] == "too long" and isinstance(shown["type"], str) and isinstance(shown["code"], str)
    assert shown["param"] in (None, "max_tokens")
    assert csv_row(row)["error"] == "too long"


@pytest.mark.parametrize("body", FORMS)
def test_lines_and_http_say_the_same(body: Any) -> None:
    row = written(Progress(errors={0: error(FailureClass.BAD_REQUEST, "too long", body=body)}))
    line = output_line(row)["response"]["body"]
    assert error_of(seen_over_http(row)) == (400, line["error"])
    assert extra_fields_of(seen_over_http(row)) == line["extra_fields"]


def test_the_error_names_each_step_and_its_words_and_is_the_first_ones() -> None:
    first = error(FailureClass.REGION, "not served in your country", 403, {"error": {"code": "region"}})
    errors = {1: error(FailureClass.BAD_REQUEST, "max_tokens must be at most 4096"), 0: first}
    ruled_out = {0: "region: not served in your country", 1: "bad_request: max_tokens must be at most 4096"}
    body = output_line(written(Progress(errors=errors, ruled_out=ruled_out)))["response"]
    assert body["status_code"] == 403
    assert body["body"]["error"]["code"] == "region"
    said = "alpha/m: not served in your country; beta/n: max_tokens must be at most 4096"
    assert body["body"]["error"]["message"] == said
    assert body["body"]["extra_fields"]["step"] == "alpha/m"
    assert body["body"]["extra_fields"]["skipped_steps"] == {"alpha/m": ruled_out[0], "beta/n": ruled_out[1]}


@pytest.mark.parametrize("status", [403, None])
def test_the_ledger_knows_how_and_where_a_job_failed_without_reading_its_error(status: int | None) -> None:
    progress = Progress(step=1, errors={1: error(FailureClass.REGION, "no", status)})
    record = outcome.failed(started(), TWO, progress, []).result
    assert record is not None and (record.body is None) is (status is None)
    assert (record.failure, record.step) == (FailureClass.REGION, "beta/n")
    nothing = outcome.failed(started(), TWO, Progress(ruled_out={0: "alpha/m: cannot take images"}), []).result
    assert nothing is not None and (nothing.failure, nothing.step) == (FailureClass.BAD_REQUEST, None)
    defect = outcome.defect(started(), progress, [], "KeyError").result
    assert defect is not None and defect.failure is FailureClass.UNKNOWN


def test_a_held_request_whose_lead_was_not_even_called_says_what_the_other_step_answered() -> None:
    errors = {0: error(FailureClass.RATE_LIMIT, "cooling", None), 1: error(FailureClass.BAD_REQUEST, "no such field")}
    progress = Progress(
        step=1, errors=errors, passed={0: Passed(put_back_for("cooling"), 5.0)}, ruled_out={1: "bad_request: no"}
    )
    line = output_line(written(progress))
    assert line["response"] is None
    assert (line["error"]["code"], line["error"]["message"]) == (
        "rate_limit",
        "alpha/m: cooling; beta/n: no such field",
    )
    assert line["error"]["extra_fields"]["skipped_steps"] == {"alpha/m": "cooling", "beta/n": "bad_request: no"}


def test_every_attempt_shows_what_was_said() -> None:
    attempt = AttemptRecord(
        *("att_1", 1, 0, "alpha", "m", "main", FailureClass.SERVER, 500, 12, 1.0), message="upstream is away"
    )
    progress = Progress(errors={0: error(FailureClass.REGION, "no", 403)}, attempts=(attempt_summary(attempt),))
    extra = output_line(written(progress))["response"]["body"]["extra_fields"]
    assert [call["message"] for call in extra["attempts"]] == ["upstream is away"]


def test_a_job_that_was_never_called_says_why_no_step_could_serve_it() -> None:
    row = written(Progress(ruled_out={0: "alpha/m: cannot take images", 1: "beta/n: cannot take images"}))
    assert "cannot take images" in csv_row(row)["error"]
    assert row.error is not None and row.error["code"] == "bad_request"
