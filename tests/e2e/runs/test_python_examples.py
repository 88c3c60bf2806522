"""The Python client in the pages and examples: their code runs as printed, with a worker."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stage_hands import fake_providers

ROOT = Path(__file__).parents[3]
UNDERSTUDY = Path(sys.executable).with_name("understudy")
DEADLINE_S = 60.0

MODEL_OF_THE_PAGES, MODEL = '"openai/gpt-4o-mini"', '"lead/large"'
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLIENT = "from understudy import Client\n"

Python = Callable[..., str]


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Python]:
    """Run a script with its arguments while a worker runs, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("_URL", "_API_KEY"))}

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    with fake_providers("") as mock:
        config = f'[providers.lead]\nkind = "openai"\nbase_url = "{mock.url}/lead/v1"\n'
        (tmp_path / "understudy.toml").write_text(config)
        worker = subprocess.Popen([UNDERSTUDY, "worker"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        try:
            yield run
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=DEADLINE_S)


def blocks_of(page: str) -> list[str]:
    """The Python code of a page that uses the client, with a model that exists."""
    return [block.replace(MODEL_OF_THE_PAGES, MODEL) for block in BLOCK.findall((ROOT / page).read_text())]


@pytest.mark.slow
def test_the_example_of_the_client_runs(python: Python) -> None:
    printed = python(ROOT / "examples" / "client.py", "lead/large")
    assert printed.startswith("succeeded: Answer ")
    assert printed.endswith("3 of 3 succeeded\n")


@pytest.mark.slow
def test_the_example_of_the_async_client_runs(python: Python) -> None:
    first = python(ROOT / "examples" / "async_client.py", "lead/large")
    assert [line.split(": Answer ")[0] for line in first.splitlines()] == ["Ghent", "Graz", "Porto"]
    assert python(ROOT / "examples" / "async_client.py", "lead/large") == first


def test_the_page_about_python_runs(python: Python) -> None:
    whole, *parts = blocks_of("docs/python.md")
    assert python("-c", whole).startswith("Answer ")
    assert len(parts) == 2
    printed = python("-c", CLIENT + "client = Client().open()\n" + "\n".join(parts))
    for said in ("queued ", "\nAnswer ", "\ndesk Answer ", "\nlamp Answer ", "\n2 0 "):
        assert said in printed


def test_the_words_about_python_in_the_readme_run(python: Python) -> None:
    (block,) = (block for block in blocks_of("README.md") if CLIENT in block)
    assert python("-c", block).startswith("Answer ")
