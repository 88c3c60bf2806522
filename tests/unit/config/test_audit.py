"""The check for known vulnerabilities succeeds only if an answer came for every package."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / ".ci" / "audit.py"


def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FLAW = {"id": "PYSEC-1", "fix_versions": ["3.0"], "aliases": ["CVE-1"], "description": "…"}
OLD = {"name": "jinja2", "version": "2.10", "vulns": [FLAW]}
SOUND = {"name": "idna", "version": "3.20", "vulns": []}
UNKNOWN = {"name": "rq", "skip_reason": "not found"}
FLAWED = {"name": "rq", "version": "3.0.0", "vulns": [FLAW]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([SOUND, OLD], 0, "no vulnerability is known of 1 packages"),
        ([SOUND, FLAWED, OLD], 1, "rq 3.0.0: PYSEC-1 (CVE-1), mended in 3.0"),
        ([SOUND, {**OLD, "vulns": []}], 3, "NOT CHECKED"),
        ([SOUND], 3, "NOT CHECKED"),
        ([UNKNOWN, {"name": "jinja2", "skip_reason": "not found"}], 3, "NOT CHECKED"),
        ([SOUND, UNKNOWN, OLD], 3, "rq; of the others none is known"),
    ],
)
def test_only_a_whole_answer_of_who_knows_vulnerabilities_is_green(
    packages: list[dict[str, Any]], code: int, said: str
) -> None:
    found, lines = audit().judged({"dependencies": packages})
    assert found == code and any(said in line for line in lines)


def test_no_answer_is_not_checked() -> None:
    assert audit().judged(None)[0] == 3


def test_nothing_of_ours_is_the_package_that_is_asked_along() -> None:
    constraints = SCRIPT.parents[1] / "constraints.txt"
    assert not any(line.lower().startswith("jinja2==") for line in constraints.read_text().splitlines())
