"""A spreadsheet goes in as it was exported, and comes back so that the spreadsheet can read it."""

import csv
import json
from pathlib import Path

from test_cli import Folder, empty, folder

__all__ = ["empty", "folder"]

GERMAN = "Artikel;Name;Preis\r\nA1;Möbel;1.234,50\r\n;;\r\nA2;Stühle, weiß;7,5\r\nA3;zu;viele;Spalten\r\n"
ASK = ("--prompt", "Beschreibe {Name} für {Preis} €", "--id-column", "Artikel")


def rows_of(file: Path) -> list[dict[str, str]]:
    text = file.read_bytes()
    assert text.startswith(b"\xef\xbb\xbf"), "Excel takes it for UTF-8"
    return list(csv.DictReader(text.decode("utf-8-sig").splitlines(), delimiter=";"))


def test_an_export_of_a_german_excel_is_run_and_read_again(folder: Folder) -> None:
    (folder.path / "in.csv").write_bytes(GERMAN.encode("cp1252"))
    refused = folder.refused("run", "in.csv", "-o", "out.csv", *ASK)
    assert "1 bad line; nothing was sent" in refused and "line 5: has 4 columns, but the header has 3" in refused
    for _ in range(2):  # the second time everything has been answered, and the rest is the same
        done = folder.type("run", "in.csv", "-o", "out.csv", *ASK, "--skip-bad")
        assert done.returncode == 0, done.stderr
        assert "line 5: has 4 columns" in done.stderr and "1 bad line" in done.stderr
        assert [(row["Artikel"], row["Name"], row["Preis"]) for row in rows_of(folder.path / "out.csv")] == [
            ("A1", "Möbel", "1.234,50"),
            ("A2", "Stühle, weiß", "7,5"),
        ]
        assert all(row["completion"] and row["finish_reason"] == "stop" for row in rows_of(folder.path / "out.csv"))
    first = folder.type("run", "in.csv", "-o", "other.csv", *ASK, "--skip-bad", "--dry-run")
    assert "in.csv is not UTF-8 (line 2); reading it as Windows-1252" in first.stdout
    assert "skipped 1 empty row" in first.stdout


def test_csv_comes_in_by_standard_input_and_parameters_by_the_command(folder: Folder) -> None:
    words = ["run", "-", "-o", "out.jsonl", "--prompt", "Describe {name}", "--max-tokens", "3", "--param", "seed=7"]
    folder.succeed(*words, stdin="sku;name\nA1;pan\n")
    (line,) = map(json.loads, (folder.path / "out.jsonl").read_text().splitlines())
    assert line["response"]["status_code"] == 200


def test_an_output_that_promises_another_format_is_refused_before_anything_is_sent(folder: Folder) -> None:
    folder.prompts(1)
    for name in ("out.xlsx", "out.tsv.gz", "out"):
        assert "use .jsonl" in folder.refused("run", "in.jsonl", "-o", name)
    assert not (folder.path / ".understudy").exists()


def test_a_mistake_in_the_first_line_leaves_no_data_folder(empty: Folder) -> None:
    empty.prompts(2)
    empty.write("empty.jsonl", "")
    for words in (["run", "in.jsonl", "-o", "out.jsonl"], ["submit", "in.jsonl"]):
        assert "no provider is configured" in empty.refused(*words)
    assert "has no lines" in empty.refused("run", "empty.jsonl", "-o", "out.jsonl")
    assert sorted(path.name for path in empty.path.iterdir()) == ["empty.jsonl", "in.jsonl"]
