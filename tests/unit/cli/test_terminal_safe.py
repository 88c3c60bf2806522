"""Nothing that a caller or a provider wrote controls a terminal, and no cell that they wrote is calculated."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator

import pytest
from rich.table import Table

from understudy.models.jobs.views import OutputRow
from understudy.models.state import JobState
from understudy.models.terminal_safe import inert, make_logs_inert
from understudy.producer import terminal
from understudy.producer.runs.output import CsvForm, without_formula, write_csv
from understudy.producer.terminal import InertConsole

ACTS = "\x1b]0;title\x07\x1b[2J\x1b]52;c;cm0gLXJmIH4=\x07\x1b[31m\x9b31m\x00\x08\r\x7f\u202e\u2066"
"""Title, clear, clipboard, colours in 7 and in 8 bits, and what turns the direction of writing."""


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def acting(text: str) -> set[str]:
    return {each for each in text if each not in "\n\t" and (not each.isprintable())}


@pytest.mark.parametrize("text", ["", "plain", "é 😀 👩‍👩‍👧 ‏".strip("‏"), "two\n\tlines", "a\u00a0b", "ก็"])
def test_words_stay_as_they_are(text: str) -> None:
    assert inert(text) == text


def test_what_acts_is_gone_and_the_rest_is_there() -> None:
    assert inert(f"a{ACTS}b") == "a]0;title[2J]52;c;cm0gLXJmIH4=[31m31mb"


def test_a_console_writes_only_its_own_escapes() -> None:
    screen = Screen()
    console = InertConsole(file=screen, force_terminal=True, width=200)
    table = Table(f"name{ACTS}")
    table.add_row(f"cell{ACTS}")
    for shown in (table, f"[bold]sentence[/bold]{ACTS}"):
        console.print(shown)
    console.print(f"as it is{ACTS}", markup=False, highlight=False, soft_wrap=True)
    written = screen.getvalue()
    assert "\x1b[1m" in written  # the bold text is ours
    for sequence in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\x00", "\u202e"):
        assert sequence not in written
    assert all(word in written for word in ("name", "cell", "sentence", "as it is"))


def test_an_answer_is_inert_on_a_terminal_and_exact_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((Screen(), inert(ACTS)), (io.StringIO(), ACTS)):
        monkeypatch.setattr("sys.stdout", stream)
        terminal.output().write(ACTS)
        assert stream.getvalue() == expected


def test_a_complaint_is_inert(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    terminal.complain(f"line 3: {ACTS}\n")
    assert not acting(stream.getvalue())


def test_logs_are_inert(caplog: pytest.LogCaptureFixture) -> None:
    usual = logging.getLogRecordFactory()
    try:
        make_logs_inert()
        logging.getLogger("anywhere").warning("the model %s is missing", f"m{ACTS}")
    finally:
        logging.setLogRecordFactory(usual)
    assert "the model m" in caplog.text and not acting(caplog.text)


@pytest.mark.parametrize(
    "cell", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", " =1", "\t=1", "\r\n=1", "＝1+1", "\0=1", "-x", "\tx"]
)
def test_a_formula_becomes_text(cell: str) -> None:
    assert without_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=b", "1-2", "-5", "+3.14", "-1,234.5", "-1e-7", "-12%", "'=1", "x\t="])
def test_cells_that_are_not_formulas_stay(cell: str) -> None:
    assert without_formula(cell) == cell


async def rows() -> AsyncIterator[OutputRow]:
    body = '{"choices":[{"message":{"content":"=HYPERLINK(1)"},"finish_reason":"stop"}]}'
    extra = '{"=head":"@cell","n":"-5"}'
    yield OutputRow("job_1", "a", 1, JobState.SUCCEEDED, 200, body, None, "p", "m", 0.1, extra)


@pytest.mark.parametrize(
    ("safe", "expected"),
    [
        (False, ["=head,n,completion", "@cell,-5,=HYPERLINK(1)"]),
        (True, ["'=head,n,completion", "'@cell,-5,'=HYPERLINK(1)"]),
    ],
)
def test_columns_and_answers_are_defused_where_that_was_asked_for(safe: bool, expected: list[str]) -> None:
    stream = io.StringIO()
    asyncio.run(write_csv(rows(), stream, CsvForm(safe=safe)))
    lines = stream.getvalue().splitlines()
    assert [line[: len(begin)] for line, begin in zip(lines, expected, strict=True)] == expected
