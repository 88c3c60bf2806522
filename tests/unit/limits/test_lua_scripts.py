"""The scripts as sent to Redis: each is assembled from its file and the parts that it includes."""

import re
from itertools import takewhile
from pathlib import Path

import pytest
from lupa.lua51 import LuaRuntime
from redis import Redis

from understudy.models.limits import constants
from understudy.models.queue.lua_scripts import script_lines, script_text

ROOT = Path(__file__).parents[3]
FILES = sorted(str(path.relative_to(ROOT)) for top in ("models", "worker") for path in (ROOT / top).rglob("*.lua"))
PARTS = [name for name in FILES if "/parts/" in name]
SCRIPTS = [name for name in FILES if name not in PARTS]


def test_there_are_scripts_and_parts() -> None:
    assert len(SCRIPTS) > 20 and len(PARTS) > 10


@pytest.mark.parametrize("name", FILES)
def test_lua_accepts_each_script_and_each_part_with_what_it_includes(name: str) -> None:
    compiled = LuaRuntime().eval("function(text) return select('#', loadstring(text)), loadstring(text) end")
    count, function, *error = compiled(script_text(name))
    assert (count, error) == (1, []) and function is not None


@pytest.mark.servers
@pytest.mark.parametrize("name", SCRIPTS)
def test_redis_accepts_each_script(name: str, redis_url: str) -> None:
    with Redis.from_url(redis_url) as connection:
        assert connection.script_load(script_text(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_at_its_top_what_it_is_given_and_what_it_returns(name: str) -> None:
    text = (ROOT / name).read_text()
    head = "\n".join(takewhile(lambda line: line.startswith("--"), text.splitlines()))
    for word in ("KEYS", "ARGV"):
        assert word in head or word not in script_text(name)
    assert re.search(r"^-- Returns\b", head, re.M)


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_part_is_in_a_script_once(name: str) -> None:
    lines = list(script_lines(name))
    assert len(set(lines)) == len(lines)


def test_each_part_is_needed() -> None:
    assert set(PARTS) == {line.file for name in SCRIPTS for line in script_lines(name)} - set(SCRIPTS)


def test_some_module_sends_each_script() -> None:
    sources = "".join(path.read_text() for top in ("models", "worker") for path in (ROOT / top).rglob("*.py"))
    assert [name for name in SCRIPTS if f'"{name}"' not in sources] == []


def test_what_python_knows_too_is_imported_from_it() -> None:
    text = script_text("models/limits/parts/rates.lua")
    assert re.search(rf"^local USED_SHARE, .* = {constants.USED_SHARE}, {constants.BURST_MS}$", text, re.M)
