"""Build the wheel and compare it with the repository: `understudy` is its only package, and no module is missing."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "producer", "worker")
ASSETS = (".html", ".css", ".js", ".svg", ".LICENSE")
"""Of the web page."""

NEEDED = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "understudy", *FOLDERS)


def expected() -> set[str]:
    """The files that the package has, by the names that they have in it."""
    found = {f"understudy/{path.name}" for path in (ROOT / "understudy").glob("*.py")} | {"understudy/py.typed"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            packaged = (".py", ".lua", ".mako", *ASSETS)
            if path.suffix in packaged:
                found.add(f"understudy/{path.relative_to(ROOT)}")
    return found


def packed() -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"  # a copy, because what an earlier build left behind would be packed as well
        source.mkdir()
        for name in NEEDED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(source)]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return {
            name
            for name in zipfile.ZipFile(wheel).namelist()
            if ".dist-info/" not in name and not name.endswith(".pyc")
        }


def main() -> int:
    wanted, found = expected(), packed()
    for name in sorted(wanted - found):
        sys.stderr.write(f"not in the wheel: {name}\n")
    for name in sorted(found - wanted):
        sys.stderr.write(f"in the wheel, but not expected: {name}\n")
    return int(wanted != found)


if __name__ == "__main__":
    sys.exit(main())
