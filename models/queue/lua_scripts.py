"""Lua scripts of Redis: read from the package's `.lua` files, together with the parts that they include.

A `.lua` file names what it needs in lines of two kinds, by paths below the package:

    -- include: models/queue/parts/clock.lua
    -- import: USED_SHARE, BURST_MS from models/limits/constants.py

An included part comes before the file, once, however many files include it. An import becomes `local` definitions with
the values of the Python module, so that no number is written twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files

PACKAGE = "understudy"
INCLUDE = re.compile(r"-- include: (\S+\.lua)")
IMPORT = re.compile(r"-- import: (\w+(?:, \w+)*) from (\S+)\.py")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a script and where it comes from; `number` counts from 1."""

    file: str
    number: int
    text: str


def script_text(name: str) -> str:
    """A script from the file `name` (a path below the package) with everything it includes. Raises
    FileNotFoundError."""
    return "".join(f"{line.text}\n" for line in script_lines(name))


def script_lines(name: str, included: set[str] | None = None) -> Iterator[Line]:
    """The lines of a script after those of its parts; parts already in `included` are left out, new ones are added
    to it."""
    included = set() if included is None else included
    included.add(name)
    top, *below = name.split("/")
    lines = files(f"{PACKAGE}.{top}").joinpath(*below).read_text("utf-8").splitlines()
    own = []
    for number, text in enumerate(lines, 1):
        if include := INCLUDE.fullmatch(text):
            if include[1] not in included:
                yield from script_lines(include[1], included)
        elif constants := IMPORT.fullmatch(text):
            own.append(Line(name, number, _definitions(constants[1].split(", "), constants[2])))
        else:
            own.append(Line(name, number, text))
    yield from own


def _definitions(names: list[str], module: str) -> str:
    values = [getattr(import_module(f"{PACKAGE}.{module.replace('/', '.')}"), name) for name in names]
    return f"local {', '.join(names)} = {', '.join(map(_literal, values))}"


def _literal(value: object) -> str:
    """A number or a plain word as Lua writes it. Raises TypeError for anything else."""
    if isinstance(value, str) and re.fullmatch(r"[\w:-]*", value):
        return f"'{value}'"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    raise TypeError(f"{value!r} cannot be written in Lua")
