"""Commands as a person types them: data on standard output, words on standard error, exit codes that mean something."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Done, type_command
from stage_hands import fake_providers

UNDERSTUDY = Path(sys.executable).with_name("understudy")
DEADLINE_S = 60.0

CONFIG = """
[providers.lead]
kind = "openai"
base_url = "MOCK/lead/v1"
api_keys = [{ name = "main", value = "env.LEAD_KEY" }]
requests_per_minute = 60_000
prices = { large = { input = 1, output = 2 } }
[chains.default]
steps = ["lead/large"]
"""
SCRIPT = """
[[rules]]
message = "forbidden"
fail = "content_filter"
[[rules]]
message = "prompt 9$"
first_per_prompt = 1
fail = "context_length"
"""
SECRET = "sk-12345678901234567890abcd"


class Folder:
    """An empty working folder in which commands are typed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        named = {name: value for name, value in os.environ.items() if not name.endswith(("_URL", "_API_KEY"))}
        self.environment = {**named, "LEAD_KEY": SECRET, "COLUMNS": "200"}

    def type(self, *words: str, stdin: str = "") -> Done:
        return type_command(*words, folder=self.path, environment=self.environment, stdin=stdin)

    def succeed(self, *words: str, stdin: str = "") -> str:
        """Its standard output."""
        done = self.type(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def refused(self, *words: str) -> str:
        """The error message of a wrong use: one sentence, no data."""
        done = self.type(*words)
        assert (done.returncode, done.stdout) == (2, ""), (words, done)
        assert "Traceback" not in done.stderr
        return done.stderr

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def prompts(self, count: int, *more: str) -> None:
        prompts = [f"prompt {number}" for number in range(count)] + list(more)
        self.write("in.jsonl", "".join(json.dumps({"custom_id": p, "prompt": p}) + "\n" for p in prompts))


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def folder(empty: Folder) -> Iterator[Folder]:
    """With a configured provider that listens."""
    with fake_providers(SCRIPT) as mock:
        empty.write("understudy.toml", CONFIG.replace("MOCK", mock.url))
        yield empty


@contextmanager
def worker_on(folder: Folder) -> Iterator[None]:
    """A worker on its data folder, for this many seconds."""
    worker = subprocess.Popen(
        [UNDERSTUDY, "worker"],
        cwd=folder.path,
        env=folder.environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(timeout=DEADLINE_S)


@pytest.fixture
def worked(folder: Folder) -> Iterator[Folder]:
    """With a worker that runs all the time."""
    with worker_on(folder):
        yield folder


def test_the_installed_command_does_the_same_in_a_process_of_its_own(empty: Folder) -> None:
    command = [UNDERSTUDY, "status"]
    done = subprocess.run(command, cwd=empty.path, env=empty.environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", empty.refused("status"))


def test_the_version_and_the_help_of_every_command_are_printed(empty: Folder) -> None:
    assert empty.succeed("--version").startswith("understudy ")
    text = empty.succeed("--help")
    for command in "run submit status watch results cancel retry pause resume attempts providers check".split():
        assert command in text
        assert "--help" in empty.succeed(command, "--help")


def test_looking_before_anything_was_submitted_leaves_no_folder_behind(empty: Folder) -> None:
    for words in (["status"], ["watch", "latest"], ["results", "-"], ["cancel", "x"], ["retry", "x"], ["attempts"]):
        assert "nothing has been submitted in .understudy yet" in empty.refused(*words)
    assert list(empty.path.iterdir()) == []


def test_a_wrong_use_is_one_sentence_and_exit_code_2(folder: Folder) -> None:
    folder.write("bad.jsonl", '{"prompt":"a"}\n{oops\n{}\n')
    folder.write("a.csv", "x\n1\n")
    folder.prompts(2)
    folder.write("wrong.toml", "[providers.lead]\nbase_urll = 1\n")
    assert "give an INPUT file" in folder.refused("submit")
    refused = folder.refused("submit", "in.jsonl", "--weight", "0")
    assert "'0' is not a valid weight; use a number from 0.01 to 100" in refused
    assert "nofile: no such file" in folder.refused("submit", "nofile")
    assert "is a directory" in folder.refused("submit", ".")
    assert "needs --prompt" in folder.refused("submit", "a.csv")
    assert "a.csv cannot be used" in folder.refused("run", "in.jsonl", "-o", "out.jsonl", "--data", "a.csv")
    assert "in.jsonl is the input" in folder.refused("run", "in.jsonl", "-o", "./in.jsonl")
    assert "unknown chain 'x'" in folder.refused("submit", "--prompt", "hi", "--chain", "x")
    assert "is not a duration" in folder.refused("attempts", "--since", "soon")
    assert "base_url" in folder.refused("check", "--config", "wrong.toml")
    complaint = folder.refused("submit", "bad.jsonl")
    assert "2 bad lines" in complaint and "line 2: " in complaint and "line 3: " in complaint
    folder.succeed("submit", "--prompt", "hi")
    for command in ("status", "watch", "results", "cancel", "retry", "pause", "resume", "attempts"):
        assert "there is no batch" in folder.refused(command, "batch_unknown")
    assert "there is no job job_unknown" in folder.refused("status", "job_unknown")


def test_a_place_that_cannot_hold_a_ledger_is_a_wrong_use_whatever_the_command(folder: Folder) -> None:
    folder.write("file", "")
    folder.prompts(1)
    for words in (["run", "in.jsonl", "-o", "out.jsonl"], ["submit", "in.jsonl"], ["migrate"]):
        assert "file cannot be used (a file is in its place)" in folder.refused(*words, "--data", "file")
    for name, address in (("DATABASE_URL", "postgres://us:hush@hush@h/d"), ("REDIS_URL", "redis://:hu/sh@h/0")):
        folder.environment[name] = address
        for words in (["run", "in.jsonl", "-o", "out.jsonl"], ["submit", "in.jsonl"], ["status"], ["providers"]):
            said = folder.refused(*words)
            assert f"{name} cannot be parsed: a password" in said and "hu" not in said
        del folder.environment[name]


def test_what_cannot_be_reached_is_exit_code_3(folder: Folder) -> None:
    folder.environment["DATABASE_URL"] = "postgresql://127.0.0.1:1/nothing"
    done = folder.type("status")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_check_shows_what_is_configured_and_never_a_key(folder: Folder) -> None:
    done = folder.type("check", "--live")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("lead", "large", "…abcd", "60,000 requests/min", "1 / 2", "answers"))
    (row,) = map(json.loads, folder.succeed("check", "--json").splitlines())
    assert (row["provider"], row["model"], row["key"], row["input_usd"]) == ("lead", "large", "main", 1.0)
    assert SECRET not in done.stdout + done.stderr + json.dumps(row)


def test_the_check_names_what_must_be_fixed(folder: Folder) -> None:
    del folder.environment["LEAD_KEY"]
    done = folder.type("check")
    assert done.returncode == 2
    assert "env.LEAD_KEY is not set" in done.stderr


def test_data_rules_that_no_provider_satisfies_are_rejected_and_nothing_is_sent(folder: Folder) -> None:
    config = (folder.path / "understudy.toml").read_text()
    folder.write(
        "understudy.toml", config.replace("requests_per_minute", 'tags = { region = "us" }\nrequests_per_minute')
    )
    folder.prompts(3)
    said = folder.refused("run", "in.jsonl", "-o", "out.jsonl", "--require", "region=eu,ch")
    assert "breaks the rule require region = ch or eu: provider 'lead' has region = us" in said
    assert "--require" in folder.refused("submit", "--prompt", "hi", "--require", "region=")
    folder.succeed("tenants", "set", "default", "--forbid", "region=us")
    assert "breaks the rule forbid region = us" in folder.refused("submit", "--prompt", "hi")


def test_a_key_is_set_aside_and_let_back_by_hand(folder: Folder) -> None:
    folder.succeed("submit", "--prompt", "hi")
    folder.succeed("providers", "disable", "lead", "--key", "main", "--reason", "too dear")
    (row,) = map(json.loads, folder.succeed("providers", "--json").splitlines())
    assert row["disabled"][0]["reason"] == "by hand: too dear"
    enabled = folder.type("providers", "enable", "lead").stderr
    assert enabled.startswith("Re-enabled 1 key of lead; nothing is running in")
    assert folder.type("providers", "enable", "lead").stderr.startswith(
        "No key of lead was disabled; nothing is running in"
    )
    (row,) = map(json.loads, folder.succeed("providers", "--json").splitlines())
    assert row["disabled"] == []
    assert "it has main" in folder.refused("providers", "enable", "lead", "--key", "mian")
    assert "did you mean 'lead'" in folder.refused("providers", "enable", "leed")


def test_the_providers_are_shown_with_their_limits_and_with_what_runs_only_while_something_runs(folder: Folder) -> None:
    done = folder.type("providers")
    assert "lead/large" in done.stdout and "60,000 configured" in done.stdout
    assert "no `understudy up`, `run` or `worker` is running in .understudy" in done.stderr
    with worker_on(folder):
        folder.succeed("submit", "--prompt", "hi", "--wait")
        done = folder.type("providers", "--json")
        (row,) = map(json.loads, done.stdout.splitlines())
        assert (row["live"], row["state"], row["last_minute"]["answered"], done.stderr) == (True, "ready", 1, "")
    folder.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    done = folder.type("providers")
    assert "Redis at redis://127.0.0.1:1/0 cannot be reached" in done.stderr and done.returncode == 0


def test_a_run_writes_its_results_and_is_resumed(folder: Folder) -> None:
    folder.prompts(8)
    done = folder.type("run", "in.jsonl", "-o", "out.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["succeeded"] == 8
    lines = [json.loads(line) for line in (folder.path / "out.jsonl").read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == {f"prompt {number}" for number in range(8)}
    again = folder.type("run", "in.jsonl", "-o", "out.jsonl")
    assert (again.returncode, again.stdout) == (0, "")
    assert "resuming: 8 answered; nothing left to ask" in again.stderr
    other = folder.type("run", "in.jsonl", "-o", "out.jsonl", "--system", "be kind")
    assert other.returncode == 2 and "--fresh" in other.stderr


def test_a_single_prompt_is_answered(worked: Folder) -> None:
    assert worked.succeed("submit", "--prompt", "hi", "--wait").startswith("Answer ")
    refused = worked.type("submit", "--prompt", "forbidden", "--wait")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "failed: " in refused.stderr


def test_a_batch_is_submitted_watched_read_and_tried_again(worked: Folder) -> None:
    worked.prompts(10, "forbidden")
    batch = worked.succeed("submit", "in.jsonl", "--weight", "3").strip()
    watched = worked.type("watch", batch, "--json")
    assert watched.returncode == 1, watched.stderr
    document = json.loads(watched.stdout)
    assert (document["id"], document["status"]) == (batch, "completed")
    assert document["request_counts"] == {"total": 11, "completed": 9, "failed": 2}
    assert document["understudy"]["weight"] == 3.0
    assert len(worked.succeed("results", "latest").splitlines()) == 11
    assert worked.succeed("results", batch, "--csv").startswith("custom_id,completion,")
    rows = [json.loads(line) for line in worked.succeed("attempts", batch, "--json", "--limit", "99").splitlines()]
    assert len(rows) == 11
    failures = worked.succeed("attempts", batch, "--json", "--failure", "content_filter")
    assert json.loads(failures)["job_id"] in {row["job_id"] for row in rows}

    retry = worked.succeed("retry", batch).strip()
    assert worked.type("watch", retry).returncode == 0
    by_state = [json.loads(line)["response"]["status_code"] for line in worked.succeed("results", batch).splitlines()]
    assert sorted(by_state) == [200] * 10 + [400]
    assert json.loads(worked.succeed("status", batch, "--json"))["understudy"]["retries"] == [retry]
    assert "worth a retry" in worked.refused("retry", batch)
    assert "has ended" in worked.refused("cancel", batch)


def test_a_batch_is_held_and_cancelled_without_a_worker(folder: Folder) -> None:
    folder.prompts(3)
    done = folder.type("submit", "in.jsonl", "--json")
    batch = json.loads(done.stdout)["id"]
    assert "no worker is running" in done.stderr
    folder.succeed("pause", batch, "--reason", "wait for the budget")
    paused = json.loads(folder.succeed("status", batch, "--json"))["understudy"]["paused"]
    assert paused == "wait for the budget"
    assert "wait for the budget" in folder.succeed("status")
    folder.succeed("resume", batch)
    folder.succeed("cancel", batch)
    assert folder.type("watch", batch).returncode == 1
    codes = [json.loads(line)["error"]["code"] for line in folder.succeed("results", batch).splitlines()]
    assert codes == ["batch_cancelled"] * 3


def test_a_reader_that_closes_the_pipe_early_is_not_an_error(folder: Folder) -> None:
    folder.prompts(3_000)
    batch = folder.succeed("submit", "in.jsonl").strip()
    folder.succeed("cancel", batch)
    results = subprocess.Popen(
        [UNDERSTUDY, "results", batch],
        cwd=folder.path,
        env=folder.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert results.stdout is not None and results.stderr is not None
    results.stdout.readline()
    results.stdout.close()
    complaint = results.stderr.read()
    results.wait(timeout=DEADLINE_S)
    results.stderr.close()
    assert complaint == b""
