"""The prose checker finds the words in its list, on the right lines, and nothing else."""

import runpy
from pathlib import Path
from typing import Any

import pytest

CHECKER: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[3] / ".ci" / "prose.py"))


def words(text: str) -> list[str]:
    return [finding.word for finding in CHECKER["in_text"](text)]


@pytest.mark.parametrize(
    "text",
    [
        "It starts anew.",
        "Mend it first.",
        "the file beside it",
        "So many jobs wait.",
        "Nobody waits.",
        "It stays for\never.",
        "'x' is no duration",
        "the database has not the tables",
        "what came of the job",
        "a key that stands in Redis",
        "what became of the job",
        "Everybody waits.",
        "It stood still.",
        "what the page says of limits",
        "It asks in vain.",
        "a dear model",
        "It is masked, also in headers.",
        "Nothing of it is kept.",
    ],
)
def test_translated_words_are_found(text: str) -> None:
    assert len(words(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Besides, it is renewed.",
        "The amended plan has many steps.",
        "There is no room.",
        "It is no longer there, and is no more than a hint.",
        "It has not changed.",
        "It stands for the whole, and nothing stands in the way.",
        "It is also in Redis, and also sent.",
        "what the page says, of all things",
    ],
)
def test_native_words_are_not(text: str) -> None:
    assert words(text) == []


def test_a_finding_names_its_line_and_what_to_write() -> None:
    (finding,) = CHECKER["in_text"]("fine\nfine\nwritten anew")
    assert finding == (3, "anew", "again, from scratch")


def test_code_blocks_of_a_page_are_left_out_and_its_lines_keep_their_numbers() -> None:
    found = CHECKER["in_page"]("one\n```\nanew\nanew\n```\nanew\n")
    assert [finding.line for finding in found] == [6]


def test_of_a_module_docstrings_literals_and_comments_are_read_and_names_are_not() -> None:
    source = '"""Fine.\n\nMade anew."""\nanew = 1\nprint(f"{anew} is no key")  # anew\n'
    found = [(finding.line, finding.word) for finding in CHECKER["in_module"](source)]
    assert found == [(3, "anew"), (5, "anew"), (5, "is no key")]


def test_of_a_test_docstrings_comments_and_names_are_read_and_literals_are_not() -> None:
    source = '"""Made anew."""\nX = "anew"\n"""Also anew."""\nprint("anew")  # anew\ndef test_anew(): pass\n'
    assert [finding.line for finding in CHECKER["in_tests"](source)] == [1, 3, 4, 5]


def test_of_a_lua_script_comments_are_read() -> None:
    found = CHECKER["in_script"]("local anew = 1\n-- Fine. So\n-- many\nreturn anew -- anew\n")
    assert [(finding.line, finding.word) for finding in found] == [(2, "So many"), (4, "anew")]
