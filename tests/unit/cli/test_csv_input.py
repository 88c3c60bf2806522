"""What spreadsheets write is read as intended, and comes back unchanged."""

import csv
import gzip
import io
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples import examples
from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import NewJob
from understudy.models.jobs.views import OutputRow
from understudy.models.state import JobState
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import Shape, csv_form
from understudy.producer.ingest.intake import BadLine, JobReader, read_jobs
from understudy.producer.runs.output import write_csv

SETTINGS = Settings.model_validate(
    {
        "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
        "chains": {"default": {"steps": ["lead/large"]}},
    }
)
GERMAN = 'Artikel;"Name, lang";Preis\r\nA1;Möbel "Süd";1.234,50\r\nA2;Stühle, weiß;7,5\r\n'
SHAPE = Shape(prompt="Beschreibe {Name, lang} für {Preis} €", id_column="Artikel")


def read(path: Path, shape: Shape, notes: list[str] | None = None) -> list[Any]:
    return list(read_jobs(path, JobReader(shape, SETTINGS, expires_at=9.0), notes))


def prompts(jobs: Sequence[Any]) -> list[str]:
    return [json.loads(job.body)["messages"][-1]["content"] for job in jobs]


async def written(jobs: Sequence[NewJob], path: Path, shape: Shape, output: str) -> bytes:
    """The CSV that a run of these jobs writes when each is answered."""
    form = csv_form(path, shape, Path(output))

    async def rows() -> AsyncIterator[OutputRow]:
        for job in jobs:
            body = '{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}]}'
            yield OutputRow(
                job.id, job.custom_id, job.line, JobState.SUCCEEDED, 200, body, None, "lead", "large", 0.5, job.extra
            )

    stream = io.StringIO(newline="")
    await write_csv(rows(), stream, form)
    return stream.getvalue().encode(form.encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["preise.csv", "preise.CSV", "preise.txt", "standard-input"])
async def test_a_german_spreadsheet_is_read_and_answered_in_kind(tmp_path: Path, encoding: str, name: str) -> None:
    path, notes = tmp_path / name, list[str]()
    path.write_bytes(GERMAN.encode(encoding))
    jobs = read(path, SHAPE, notes)
    assert prompts(jobs) == ['Beschreibe Möbel "Süd" für 1.234,50 €', "Beschreibe Stühle, weiß für 7,5 €"]
    assert [(job.custom_id, job.line) for job in jobs] == [("A1", 2), ("A2", 3)]
    assert notes == ([f"{name} is not UTF-8 (line 2); reading it as Windows-1252"] if encoding == "cp1252" else [])
    output = await written(jobs, path, SHAPE, "out.csv")
    assert output.startswith(b"\xef\xbb\xbf") == (encoding != "utf-8")
    first, second, _ = output.decode("utf-8-sig").split("\r\n", 2)
    assert first == "Artikel;Name, lang;Preis;completion;finish_reason;provider;model;cost_usd;error"
    assert second == 'A1;"Möbel ""Süd""";1.234,50;yes;stop;lead;large;0.5;'


def test_the_line_is_named_that_shows_another_encoding_however_late_it_comes(tmp_path: Path) -> None:
    path, notes = tmp_path / "in.csv", list[str]()
    path.write_bytes(b"sku,name\n" + b"A,table\n" * 3_000 + "B,Stühle\n".encode("cp1252") + b"A,desk\n" * 9)
    assert prompts(read(path, Shape(prompt="{name}"), notes))[3_000] == "Stühle"
    assert notes == ["in.csv is not UTF-8 (line 3,002); reading it as Windows-1252"]


def test_a_utf8_file_with_a_few_wrong_bytes_is_refused_and_not_garbled(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("name\nMöbel\nStühle\nBänke\n".encode() + "Küche\n".encode("cp1252") + "Löffel\n".encode())
    with pytest.raises(InputError, match="line 5 is not UTF-8 text"):
        read(path, Shape(prompt="{name}"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("sku\tname\nA1\tpan, big; blue\n", "in.tsv"),
        ("sku\tname\nA1\tpan, big; blue\n", "in.csv"),
        ('sep=;\r\nsku;name\r\nA1;"pan, big; blue"\r\n', "in.csv"),
        ('"sep=|"\nsku|name\nA1|pan, big; blue\n', "in.csv"),
        ('sku , name\nA1,"pan, big; blue"\n', "in.csv"),
        ('\n;;\n"sku";"name";\n"A1";"pan, big; blue";\n', "in.csv"),
        ('name;sku,old;sku\n"pan, big; blue";x;A1\n', "in.csv"),
    ],
)
def test_the_separator_is_the_one_that_gives_the_columns_that_were_named(
    tmp_path: Path, content: str, name: str
) -> None:
    path = tmp_path / name
    path.write_text(content, newline="")
    (job,) = read(path, Shape(prompt="Describe {name}", id_column="sku"))
    assert (prompts([job]), job.custom_id) == (["Describe pan, big; blue"], "A1")


def test_columns_without_a_name_at_the_end_hide_no_separator(tmp_path: Path) -> None:
    """As from a spreadsheet whose last columns were used and then emptied."""
    for name, separator in (("in.csv", "\t"), ("in.txt", "\t"), ("in.csv", ";"), ("in.csv", ",")):
        rows = [["prompt", "", ""], ["a", "", ""], ["b", "x", ""]]
        (tmp_path / name).write_text("\r\n".join(map(separator.join, rows)))
        assert prompts(read(tmp_path / name, Shape(prompt="{prompt}"))) == ["a", "b"]


def test_the_separator_of_columns_that_are_not_there_is_guessed_for_the_message(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("sku;full name;colour\n")
    with pytest.raises(
        InputError, match=r"no column 'fullname'; it has sku, full name, colour; did you mean 'full name'"
    ):
        read(path, Shape(prompt="{fullname}"))


def test_empty_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    path, notes = tmp_path / "in.csv", list[str]()
    path.write_text("sku,name\nA1,pan\n,\n\n , \nA2,pot,,\n,,,\n")
    jobs = read(path, Shape(prompt="{name}", id_column="sku"), notes)
    assert [(job.custom_id, job.line) for job in jobs] == [("A1", 2), ("A2", 6)]
    assert notes == ["skipped 3 empty rows"]


def test_rows_that_leave_a_gap_in_the_prompt_are_counted(tmp_path: Path) -> None:
    path, notes = tmp_path / "in.csv", list[str]()
    path.write_text("name,colour,note\npan,red,\npot,,x\nlid, ,\n,,\n")
    assert len(read(path, Shape(prompt="{name} in {colour}", limit=3), notes)) == 3
    assert notes == ["2 rows have an empty cell in a column of the prompt, the first on line 3"]


def test_an_id_that_stands_twice_is_called_by_the_name_of_its_column(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("sku,name\nA1,pan\nA1,pot\n")
    _, bad = read(path, Shape(prompt="{name}", id_column="sku"))
    assert (bad.line, bad.reason) == (3, "sku 'A1' was already used on line 2")


async def test_tabs_go_into_a_tsv_and_commas_into_a_csv_that_was_made_of_one(tmp_path: Path) -> None:
    path, shape = tmp_path / "in.tsv", Shape(prompt="{name}")
    path.write_text("name\tsku\npan\tA1\n")
    assert csv_form(path, shape, Path("out.csv")).separator == ","
    assert (await written(read(path, shape), path, shape, "out.tsv")).startswith(b"name\tsku\tcompletion\t")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
named = cells.filter(lambda name: name.strip() not in ("", "Name"))
names = st.lists(named, min_size=1, max_size=5, unique_by=str.strip)
columns = names.flatmap(lambda known: st.permutations([*known, "Name", "", ""]))


@given(
    header=columns,
    data=st.data(),
    separator=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_cell_comes_back_in_its_place(
    tmp_path: Path, header: list[str], data: st.DataObject, separator: str, encoding: str, quoting: Any
) -> None:
    body = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), min_size=1, max_size=4))
    sheet = io.StringIO(newline="")
    csv.writer(sheet, delimiter=separator, quoting=quoting).writerows([header, *body])
    path, shape = tmp_path / ("in.tsv" if separator == "\t" else "in.csv"), Shape(prompt="Describe {Name}")
    path.write_bytes(sheet.getvalue().encode(encoding))
    form = csv_form(path, shape, Path(f"out{path.suffix}"))
    assert form.separator == separator
    jobs = [job for job in read(path, shape) if isinstance(job, NewJob)]
    output = await written(jobs, path, shape, f"out{path.suffix}")
    back = list(csv.reader(io.StringIO(output.decode(form.encoding), newline=""), delimiter=separator, strict=True))
    said = [row for row in body if any(cell.strip() for cell in row)]
    width = len(header)
    assert prompts(jobs) == [f"Describe {row[header.index('Name')]}" for row in said]
    assert [row[:width] for row in back] == ([header, *said] if said else [])


starts = st.sampled_from(
    [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\x1f\x8b", b"sep=;\n", b"[{"]
)
tokens = [b"a", b"{a}", b",", b";", b"\t", b'"', b"\r", b"\n", b"\r\n", b"\0", b" ", b"\xfc", b"\xc3\xbc", b"\x81"]
pieces = st.lists(st.sampled_from(tokens) | st.binary(max_size=3), max_size=30)
names_of_files = st.sampled_from(["in.csv", "in.tsv", "in.txt", "in.jsonl"])


@given(starts, pieces, names_of_files, st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_are_an_input_is_read_or_refused_in_words(
    tmp_path: Path, start: bytes, content: list[bytes], name: str, packed: bool
) -> None:
    path = tmp_path / name
    raw = start + b"".join(content)
    path.write_bytes(gzip.compress(raw) if packed else raw)
    shape = Shape() if name == "in.jsonl" else Shape(prompt="Describe {a}")
    try:
        for job in read(path, shape):
            assert isinstance(job, NewJob | BadLine)
    except InputError as refused:
        assert len(str(refused).splitlines()) == 1


windows_text = st.text(st.characters(codec="cp1252", exclude_characters='",\r\n\0'), min_size=1, max_size=40)


@given(windows_text)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_1252_is_read_as_it_was_written_unless_it_is_valid_utf8(tmp_path: Path, text: str) -> None:
    path, raw = tmp_path / "in.csv", f"x{text}x".encode("cp1252")
    path.write_bytes(b"a\n" + raw + b"\n")
    try:
        (prompt,) = prompts(read(path, Shape(prompt="{a}")))
    except InputError as refused:
        assert "not UTF-8 text" in str(refused)
    else:
        assert prompt in (f"x{text}x", raw.decode("utf-8", "replace"))


@given(windows_text)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_utf8_with_a_wrong_byte_is_never_taken_for_windows_1252(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(f"a\nMöbel {text}\n".encode() + b"x\xfcx\n")
    with pytest.raises(InputError, match="line 3 is not UTF-8 text"):
        read(path, Shape(prompt="{a}"))
