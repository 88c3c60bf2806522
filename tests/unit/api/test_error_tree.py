"""The drawing of our errors in `models.errors` is what the classes are."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import understudy
from understudy.models import errors
from understudy.models.errors import UnderstudyError

DRAWN = re.compile(r"([│├└─ ]*)(\w+) *(\d(?!\d))? *(\d{3})? *(\w+)?")
SOURCES = Path(understudy.__file__).parents[1]
FROM_HTTP = {"ApiError", "RequestError"}
"""Their instances have a status or code of their own."""


def drawn() -> Iterator[tuple[str, str | None, tuple[int, int, str]]]:
    """Of each class: its name, that of its base, and exit code, status and code, inherited where left out."""
    lines = (errors.__doc__ or "").split("code\n", 1)[1].split("\n\n", 1)[0].splitlines()
    above: list[tuple[str, tuple[int, int, str]]] = []
    for line in lines:
        found = DRAWN.fullmatch(line)
        assert found is not None, line
        depth = len(found[1]) // 4
        base, usual = above[depth - 1] if depth else (None, (0, 0, ""))
        said = (int(found[3] or usual[0]), int(found[4] or usual[1]), found[5] or usual[2])
        above[depth:] = [(found[2], said)]
        yield found[2], base, said


def classes() -> dict[str, type[UnderstudyError]]:
    """Every class of ours below UnderstudyError."""
    bases: dict[str, tuple[str, list[str]]] = {}
    for part in ("models", "producer", "worker"):
        for path in (SOURCES / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    module = ".".join(("understudy", *path.relative_to(SOURCES).with_suffix("").parts))
                    bases[node.name] = module, [ast.unparse(base) for base in node.bases]
    ours = {"UnderstudyError"}
    while more := {name for name, (_, above) in bases.items() if ours & set(above)} - ours:
        ours |= more
    return {name: getattr(importlib.import_module(bases[name][0]), name) for name in ours}


def test_the_drawing_shows_every_error_with_its_base_and_what_it_means() -> None:
    tree = {name: (base, said) for name, base, said in drawn()}
    found = classes()
    assert set(tree) == set(found)
    for name, (base, (exit_code, status, code)) in tree.items():
        error = found[name]
        assert error.__bases__[0].__name__ == (base or "Exception"), name
        assert error.exit_code == exit_code, name
        if name not in FROM_HTTP:
            assert (error.status, error.code) == (status, code), name
