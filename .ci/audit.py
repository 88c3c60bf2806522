"""Are vulnerabilities known of the packages in constraints.txt? `make audit`; asks the database of OSV with pip-audit.

Exit code 0: none is known. 1: some are, and are listed. 3: it was not checked, because the database could not be asked
or did not know everything. A package that is known to be vulnerable is asked along: without that, an answer of a
database that knows nothing, such as a mirror's, would look like a clean one.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
KNOWN_BAD = "jinja2", "2.10"
"""CVE-2019-10906 and others. Nothing of ours needs it."""

CLEAN, VULNERABLE, NOT_CHECKED = 0, 1, 3
TIMEOUT_S = 300


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "asked.txt", Path(folder) / "answer.json"
        asked.write_text(f"{CONSTRAINTS.read_text()}\n{'=='.join(KNOWN_BAD)}\n")
        said = _ask(asked, answer)
        document = json.loads(answer.read_text()) if answer.exists() else None
    code, lines = judged(document)
    sys.stderr.write("\n".join([*lines, *(said[-1:] if document is None else [])]) + "\n")
    return code


def _ask(asked: Path, answer: Path) -> list[str]:
    """What pip-audit said; its exit code does not tell vulnerabilities from a database that does not answer."""
    options = ["--vulnerability-service", "osv", "--disable-pip", "--no-deps", "--progress-spinner", "off"]
    where = ["--requirement", str(asked), "--format", "json", "--output", str(answer)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options, *where], capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return [f"no answer within {TIMEOUT_S} s"]
    return done.stderr.strip().splitlines()


def judged(document: Any) -> tuple[int, list[str]]:
    """The exit code and what to say, from what pip-audit wrote; None: it wrote nothing."""
    if document is None:
        return NOT_CHECKED, ["NOT CHECKED for known vulnerabilities: the database cannot be asked"]
    packages = document["dependencies"]
    bad = [each for each in packages if each.get("vulns")]
    if not any(each["name"] == KNOWN_BAD[0] for each in bad):
        return NOT_CHECKED, [
            "NOT CHECKED for known vulnerabilities: the database does not know even those of old packages"
        ]
    found = [
        f"{each['name']} {each['version']}: {of['id']} ({', '.join(of['aliases']) or 'no other name'}), "
        f"mended in {', '.join(of['fix_versions']) or 'no version'}"
        for each in bad
        if each["name"] != KNOWN_BAD[0]
        for of in each["vulns"]
    ]
    if found:
        return VULNERABLE, found
    passed_over = [each["name"] for each in packages if "skip_reason" in each]
    if passed_over:
        return NOT_CHECKED, [
            f"NOT CHECKED for known vulnerabilities: {', '.join(passed_over)}; of the others none is known"
        ]
    return CLEAN, [f"no vulnerability is known of {len(packages) - 1} packages"]


if __name__ == "__main__":
    sys.exit(main())
