"""Declared dependencies are those in use: there is no unused package, and only one HTTP client."""

import ast
import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

USED_BY_OTHERS = {
    "hiredis": "redis-py parses with it",
    "httptools": "uvicorn parses with it",
    "aiosqlite": "SQLAlchemy's driver of SQLite",
    "psycopg": "SQLAlchemy's driver of PostgreSQL",
    "python-multipart": "FastAPI's forms",
}
"""Packages that are named by us and imported by another one."""

HTTP_CLIENTS = {"httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3", "niquests", "pycurl"}


@cache
def imported() -> set[str]:
    """The top-level names of everything that our packages import."""
    found: set[str] = set()
    for package in ("models", "producer", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found.update(each.name.partition(".")[0] for each in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found


@cache
def owners_of_modules() -> dict[str, list[str]]:
    """The packages that provide a module."""
    return {module: [canonical(each) for each in owners] for module, owners in packages_distributions().items()}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(canonical(re.split(r"[\[<>=!~ ]", each)[0]) for each in project["dependencies"])


@pytest.mark.parametrize("name", declared())
def test_a_declared_package_is_imported_or_used_by_a_named_one(name: str) -> None:
    if name not in USED_BY_OTHERS:
        modules = {module for module, owners in owners_of_modules().items() if name in owners}
        assert modules & imported(), f"nothing imports {name}"


def test_of_http_clients_there_is_one_and_its_connections() -> None:
    """docs/adr explains why it is httpx, and what would change that."""
    assert imported() & HTTP_CLIENTS == {"httpx", "httpcore"}


def test_versions_are_exact_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!]+", line)] == []
    assert len({canonical(line.partition("==")[0]) for line in lines}) == len(lines)
