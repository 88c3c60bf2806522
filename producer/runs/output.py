"""Results as lines: OpenAI batch output lines, or the CSV columns of the input followed by the answer.

The output file is a projection of the ledger. It is written to a temporary file next to its path and renamed at the
end, so it is either complete or absent.
"""

import csv
import os
import re
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from understudy.models.config.private_files import new_file
from understudy.models.jobs.views import JobView, OutputRow
from understudy.models.state import JobState
from understudy.producer.ingest.decoding import InputError
from understudy.producer.terminal import Writes

JSON_LINES = frozenset({".jsonl", ".ndjson"})
SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""By suffix of the output; a CSV output takes the separator of its input."""

WITHOUT_ANSWER = {
    JobState.CANCELLED: {"code": "batch_cancelled", "message": "This request was cancelled before it finished."},
    JobState.EXPIRED: {"code": "batch_expired", "message": "This request could not be completed before its deadline."},
}

UNEXPLAINED = {"code": "unknown", "message": "This request failed, and the reason was not recorded."}


@dataclass(frozen=True, slots=True)
class CsvForm:
    """How CSV is written. `marked`: with a byte order mark, without which Excel misreads UTF-8.
    `safe`: no cell can be evaluated as a formula."""

    separator: str = ","
    marked: bool = False
    safe: bool = False

    @property
    def encoding(self) -> str:
        return "utf-8-sig" if self.marked else "utf-8"


CSV = CsvForm()


def is_csv(output: Path) -> bool:
    return output.suffix.lower() in SEPARATORS


def check_suffix(output: Path, *, csv_safe: bool = False) -> None:
    """Raises InputError for a suffix of an unsupported format, or one to which `csv_safe` does not apply."""
    if csv_safe and not is_csv(output):
        raise InputError(f"{output}: --csv-safe applies to .csv and .tsv only; JSON lines have no formulas")
    if not is_csv(output) and output.suffix.lower() not in JSON_LINES:
        excel = "; Excel opens .csv" if output.suffix.lower().startswith(".xls") else ""
        raise InputError(f"{output}: unsupported output format; use .jsonl, .ndjson, .csv or .tsv{excel}")


def output_line(row: OutputRow) -> dict[str, Any]:
    """One line of a batch's output in OpenAI's format, success or failure."""
    return _line(row, orjson.loads(row.body) if row.body else None)


def rendered_line(row: OutputRow) -> bytes:
    """`output_line` as JSON with a newline. The stored answer is embedded as it is, which is much faster than parsing
    and serializing it. Line breaks in it are whitespace of the JSON, and become spaces."""
    body = orjson.Fragment(row.body.replace("\n", " ").replace("\r", " ")) if row.body else None
    return orjson.dumps(_line(row, body), option=orjson.OPT_APPEND_NEWLINE)


def rendered_size(row: OutputRow, answer_bytes: int) -> int:
    """The length of the rendered line of a row whose body or error (`answer_bytes` long) was not loaded."""
    if row.status_code is not None:
        return len(rendered_line(row)) + (answer_bytes - len("null") if answer_bytes else 0)
    if answer_bytes and row.state not in WITHOUT_ANSWER:
        return len(rendered_line(replace(row, error={"": ""}))) + answer_bytes - len('{"":""}')
    return len(rendered_line(row))


def _line(row: OutputRow, body: Any) -> dict[str, Any]:
    response = None
    if row.status_code is not None:
        response = {"status_code": row.status_code, "request_id": row.job_id, "body": body}
    error = (_without_answer(row) or row.error or UNEXPLAINED) if response is None else None
    return {"id": f"batch_req_{row.job_id}", "custom_id": row.custom_id, "response": response, "error": error}


def _without_answer(row: OutputRow) -> dict[str, str] | None:
    error = WITHOUT_ANSWER.get(row.state)
    if error is None or row.waited_for is None:
        return error
    return {**error, "message": f"{error['message'].removesuffix('.')}: {row.waited_for}"}


def row_of_job(view: JobView, answer: str | None = None) -> OutputRow:
    """A job as an output row, with its answer as JSON; for an open job, only ids and state are known."""
    expired_for = view.put_back_for if view.state is JobState.EXPIRED else None
    return OutputRow(
        job_id=view.id,
        custom_id=view.custom_id,
        line=view.line,
        state=view.state,
        status_code=view.status_code,
        body=answer if view.state is JobState.SUCCEEDED else view.error_body,
        error=view.error,
        provider=view.provider,
        model=view.model,
        cost_usd=view.cost_usd,
        extra=view.extra,
        waited_for=None if expired_for is None else expired_for.sentence,
    )


def completion_text(body: Any) -> str:
    """The text of the first choice; without text, its tool calls as JSON; for embeddings, the first vector."""
    if body and body.get("object") == "list" and body.get("data"):
        return orjson.dumps(body["data"][0]["embedding"]).decode()
    message = body["choices"][0]["message"] if body and body.get("choices") else {}
    if message.get("content"):
        return str(message["content"])
    if message.get("tool_calls"):
        return orjson.dumps(message["tool_calls"]).decode()
    return str(message.get("refusal") or "")


def finish_reason(body: Any) -> str:
    """Why the first choice ended; `length` means truncated. Embeddings have none."""
    return str((body["choices"][0].get("finish_reason") if body.get("choices") else None) or "")


def error_text(line: dict[str, Any]) -> str:
    """Why a line has no answer: our error message, or the provider's."""
    if line["error"] is not None:
        return str(line["error"].get("message") or line["error"].get("code"))
    body = line["response"]["body"] if line["response"] else {}
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or error)
    return str(error or f"HTTP {line['response']['status_code']}")


def csv_row(row: OutputRow) -> dict[str, Any]:
    """The input's columns, then the answer's: completion, finish_reason, provider, model, cost_usd, error."""
    line = output_line(row)
    succeeded = row.state is JobState.SUCCEEDED
    columns = orjson.loads(row.extra) if row.extra else {"custom_id": row.custom_id}
    body = line["response"]["body"] if succeeded and line["response"] else None
    answer = {
        "completion": completion_text(body) if body else "",
        "finish_reason": finish_reason(body) if body else "",
        "provider": row.provider or "",
        "model": row.model or "",
        "cost_usd": "" if row.cost_usd is None else f"{row.cost_usd:.8f}".rstrip("0").rstrip("."),
        "error": "" if succeeded else error_text(line),
    }
    return {**columns, **{_free_name(name, columns): text for name, text in answer.items()}}


def _free_name(name: str, columns: Mapping[str, Any]) -> str:
    """A column name that the input does not use: its columns keep their names and values, since the input may itself be
    such an output."""
    while name in columns:
        name = f"answer_{name}"
    return name


async def write_output(rows: AsyncIterator[OutputRow], path: Path, form: CsvForm = CSV) -> int:
    """Write lines to `path`, atomically. Returns their number. Keeps the file mode."""
    part = path.with_name(path.name + ".part")
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666
    with open(new_file(part, mode), "w", encoding=form.encoding if is_csv(path) else "utf-8", newline="") as stream:
        count = await (write_csv(rows, stream, form) if is_csv(path) else write_jsonl(rows, stream))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    return count


FORMULA = re.compile(r"[\s\0]*[=+\-@＝＋－＠]|[\t\r]")
NUMBER = re.compile(r"\s*[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?%?\s*")


def without_formula(cell: object) -> str:
    """A cell that no spreadsheet evaluates: formulas get an apostrophe in front. Numbers stay as they are."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


async def write_jsonl(rows: AsyncIterator[OutputRow], stream: Writes) -> int:
    """Write one output line per row. Returns their number."""
    count = 0
    async for row in rows:
        stream.write(rendered_line(row).decode())
        count += 1
    return count


async def write_csv(rows: AsyncIterator[OutputRow], stream: Writes, form: CsvForm = CSV) -> int:
    """Write a header with the columns of the first row, then the rows. Returns their number."""
    writer: csv.DictWriter[str] | None = None
    shown = without_formula if form.safe else str
    count = 0
    async for row in rows:
        columns = csv_row(row)
        if writer is None:
            names = list(columns)
            writer = csv.DictWriter(stream, names, restval="", extrasaction="ignore", delimiter=form.separator)
            writer.writerow({name: shown(name) if name.strip() else "" for name in names})
        writer.writerow({name: shown(value) for name, value in columns.items()} if form.safe else columns)
        count += 1
    return count
