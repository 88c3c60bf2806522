"""`--dry-run` reads and checks as a real submit does, and leaves no trace."""

import json
from collections.abc import Callable

from stage_hands import Mock, Scene, alone_and_on_servers

TABLES = ("batch", "job", "job_input", "chain", "lane", "tally")
PRICES = "\n[providers.alpha.prices]\nm = { input = 1_000, output = 2_000 }\n"


@alone_and_on_servers
def test_a_dry_run_writes_nothing_calls_no_provider_and_says_what_it_would_cost(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers("")
    scene.configure(mock, more=PRICES)
    source = scene.write_prompts(40)
    scene.submit(source)
    before = {table: scene.ledger.count(table) for table in TABLES}
    for command in (["submit"], ["run", "-o", str(scene.output)]):
        done = scene.type(*command, source, "--dry-run", "--json")
        assert done.returncode == 0, done.said
        told = json.loads(done.said)
        assert (told["dry_run"], told["lines"], told["unpriced_lines"]) == (True, 40, 0)
        assert told["estimated_cost_usd"] > 40 * 500 * 2_000 / 1e6
        (chain,) = told["chains"]
        assert chain["steps"][0]["step"] == "alpha/m" and chain["steps"][0]["asked_first"] == 40
    assert {table: scene.ledger.count(table) for table in TABLES} == before
    assert not scene.output.exists() and not mock.stats()["providers"]


def test_a_dry_run_in_a_fresh_folder_leaves_no_data_folder(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""), more=PRICES)
    source = scene.write_prompts(3)
    there = sorted(path.name for path in scene.folder.iterdir())
    done = scene.type("submit", source, "--dry-run")
    assert done.returncode == 0, done.said
    assert "3 lines, about $" in done.said and "Nothing was sent or stored" in done.said
    assert sorted(path.name for path in scene.folder.iterdir()) == there


def test_a_dry_run_into_a_written_output_counts_what_would_be_asked(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers('[[rules]]\nmessage = "refused"\nfail = "content_filter"')
    scene.configure(mock, more=PRICES)
    source = scene.folder / "in.jsonl"
    source.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "refused"}\n')
    run = ["run", source, "-o", str(scene.output), "--model", "alpha/m"]
    scene.type(*run)
    counted = {
        option: json.loads(scene.type(*run, "--dry-run", "--json", *option.split()).said)["lines"]
        for option in ("", "--all", "--fresh")
    }
    assert counted == {"": 0, "--all": 1, "--fresh": 3}


def test_a_dry_run_names_every_bad_line_as_a_submit_does(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""), more=PRICES)
    source = scene.folder / "bad.jsonl"
    source.write_text('{"prompt": "a", "model": "alpha/m"}\n{oops\n{"prompt": "b", "model": "nowhere/m"}\n')
    dry, real = scene.type("submit", source, "--dry-run"), scene.type("submit", source)
    assert dry.returncode == real.returncode == 2
    assert dry.said == real.said and "line 2: " in dry.said and "line 3: " in dry.said
    skipping = scene.type("submit", source, "--dry-run", "--skip-bad")
    assert skipping.returncode == 0 and "line 2 would be skipped" in skipping.said
