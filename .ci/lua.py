"""Check every Lua script as it is sent to Redis, with luacheck: syntax, undefined and unused names, long lines.

What a part defines need not be used by every script that includes it, but by one of them.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from understudy.models.queue.lua_scripts import script_lines

ROOT = Path(__file__).parents[1]
COMMAND = (
    *("luacheck", "-", "--std", "lua51", "--read-globals", "redis", "KEYS", "ARGV", "--max-line-length", "120"),
    *("--codes", "--no-color", "--formatter", "plain"),
)
FINDING = re.compile(r"stdin:(\d+):\d+: (\([EW]\d+\) .*)")
UNUSED = re.compile(r"\(W[23]")
"""The warnings that say that nothing uses it."""

Place = tuple[str, int, str]
"""File, line, and what is wrong there."""


def scripts() -> list[str]:
    names = (str(path.relative_to(ROOT)) for top in ("models", "worker") for path in (ROOT / top).rglob("*.lua"))
    return sorted(name for name in names if "/parts/" not in name)


def findings(script: str) -> tuple[set[Place], set[str]]:
    """What is wrong with the script, and the files that it consists of."""
    lines = list(script_lines(script))
    text = "".join(f"{line.text}\n" for line in lines)
    checked = subprocess.run(COMMAND, input=text, capture_output=True, text=True)
    found = FINDING.findall(checked.stdout)
    if checked.returncode and not found:
        sys.exit(f"{script}: {checked.stdout}{checked.stderr}")
    places = ((lines[int(number) - 1], what) for number, what in found)
    return {(line.file, line.number, what) for line, what in places}, {line.file for line in lines}


def main() -> int:
    if shutil.which("luacheck") is None:
        sys.exit("luacheck is not installed (in Debian: lua-check)")
    times: Counter[Place] = Counter()
    users: Counter[str] = Counter()
    for script in scripts():
        found, files = findings(script)
        times.update(found)
        users.update(files)
    wrong = [place for place, count in times.items() if not UNUSED.match(place[2]) or count == users[place[0]]]
    for file, number, what in sorted(wrong):
        sys.stderr.write(f"{file}:{number}: {what}\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
