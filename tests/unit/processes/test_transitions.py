"""The transitions in `models/state.py` are those that the store's statements make and the docs describe."""

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from sqlalchemy import BindParameter, Case, ColumnElement, Insert, Table, Update
from sqlalchemy.sql.elements import BinaryExpression, ColumnClause
from sqlalchemy.sql.visitors import iterate

from understudy.models import store
from understudy.models.state import (
    BATCH_TRANSITIONS,
    JOB_TRANSITIONS,
    OPEN_BATCH_STATES,
    OPEN_STATES,
    JobState,
    Transition,
)
from understudy.models.store.sql import BulkInsert, batch, job

_CACHED = type(cache(lambda: None))
PAGE = Path(__file__).parents[3] / "docs" / "state_machine.md"
OF: dict[str, tuple[Table, Collection[StrEnum], Sequence[Transition[Any]]]] = {
    "Job": (job, OPEN_STATES, JOB_TRANSITIONS),
    "Batch": (batch, OPEN_BATCH_STATES, BATCH_TRANSITIONS),
}


@pytest.fixture(params=OF)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def statements() -> dict[str, list[Update | Insert | BulkInsert]]:
    """Every writing statement, by its module in `models.store` and its name; one name may stand for several
    statements."""
    found = {}
    for each in walk_packages(store.__path__, f"{store.__name__}."):
        module = import_module(each.name)
        for named in _defined_in(Path(str(module.__file__))):
            made = getattr(module, named)
            if isinstance(made, _CACHED):
                made = [made(dialect)[0] for dialect in ("sqlite", "postgresql")]
            writes = [one for one in _several(made) if isinstance(one, Update | Insert | BulkInsert)]
            if writes:
                found[f"{each.name.removeprefix(store.__name__ + '.')}.{named}"] = writes
    return found


def _defined_in(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.FunctionDef) and [each.arg for each in node.args.args] == ["dialect"]:
            yield node.name


def _several(made: Any) -> Iterable[Any]:
    if isinstance(made, dict):
        return made.values()
    return made if isinstance(made, list | tuple) else [made]


def _written(statement: Update | Insert | BulkInsert, table: Table) -> Any:
    """The state that a statement writes to a row; None: it writes none."""
    if isinstance(statement, BulkInsert):
        return "rows" if statement._table is table else None
    if statement.table is not table:
        return None
    return {str(column): value for column, value in (statement._values or {}).items()}.get("state")


def _targets(written: ColumnElement[Any]) -> set[str | None]:
    """The states that an expression can have; None: the row's own state, or one from a parameter."""
    if isinstance(written, Case):
        given = [each for _, each in written.whens] + ([] if written.else_ is None else [written.else_])
        return set().union(*map(_targets, given))
    return {str(written.value)} if isinstance(written, BindParameter) else {None}


def _sources(statement: Update, table: Table) -> set[str | None]:
    """The states of the rows that the statement selects."""
    assert statement.whereclause is not None
    found: set[str | None] = set()
    for each in iterate(statement.whereclause):
        if isinstance(each, BinaryExpression) and any(one is table.c.state for one in iterate(each.left)):
            for constant in iterate(each.right):
                if isinstance(constant, BindParameter):
                    found |= set(constant.value if isinstance(constant.value, list) else [constant.value])
                elif isinstance(constant, ColumnClause) and constant.is_literal:
                    found.add(constant.name.strip("'"))
    return found


def test_every_statement_that_writes_a_state_has_its_transitions(name: str) -> None:
    table, _, transitions = OF[name]
    writing = {
        named for named, several in statements().items() if any(_written(each, table) is not None for each in several)
    }
    assert writing == {each.statement for each in transitions}


def test_every_statement_makes_the_transitions_that_it_is_said_to_make(name: str) -> None:
    table, _, transitions = OF[name]
    for named in {each.statement for each in transitions}:
        said_targets = {each.target for each in transitions if each.statement == named}
        said_sources = {each.source for each in transitions if each.statement == named}
        for statement in statements()[named]:
            if isinstance(statement, BulkInsert):
                assert (said_sources, said_targets) == ({None}, {JobState.QUEUED}), named
                continue
            targets = _targets(_written(statement, table))
            stays, targets = None in targets, targets - {None}
            assert targets <= said_targets if stays else targets == said_targets, named
            sources = _sources(statement, table) if isinstance(statement, Update) else {None}
            assert said_sources <= sources if stays else said_sources == sources, named


def test_every_open_state_can_be_left_every_state_reached_and_no_end_undone(name: str) -> None:
    _, open_states, transitions = OF[name]
    assert {each.source for each in transitions if each.source is not None} == set(open_states)
    assert {each.target for each in transitions} == set(type(transitions[0].target))


def _section(name: str) -> str:
    return PAGE.read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_table_of_the_page_has_these_transitions_and_no_others(name: str) -> None:
    documented = set()
    for row in re.findall(r"^\| (.*→.*) \|$", _section(name), re.MULTILINE):
        change, _, actors, named = (cell.strip() for cell in row.split(" | "))
        sources, target = (part.strip() for part in change.split("→"))
        for source in sources.split(", "):
            for actor in actors.split(", "):
                documented |= {(source or None, target, actor, each) for each in re.findall(r"`([\w.]+)`", named)}
    _, _, transitions = OF[name]
    assert documented == {(each.source, str(each.target), each.actor, each.statement) for each in transitions}


def test_the_diagram_of_the_page_has_these_ways_and_no_others(name: str) -> None:
    drawn = re.findall(r"^ +(\S+) --> ([^\s:]+)", _section(name), re.MULTILINE)
    _, open_states, transitions = OF[name]
    ended = {(str(each.target), "[*]") for each in transitions if each.target not in open_states}
    assert set(drawn) == {(each.source or "[*]", str(each.target)) for each in transitions} | ended
    assert len(drawn) == len(set(drawn))
