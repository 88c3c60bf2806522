"""The list of commands describes each command as the command describes itself."""

import pkgutil
from importlib import import_module

import pytest
from typer.main import get_command, get_group

import understudy.producer.cli.commands as commands
from understudy.producer.cli.app import COMMANDS, LazyCommand, Listed, app


def ids(listed: Listed) -> str:
    return listed.name


@pytest.mark.parametrize("listed", COMMANDS, ids=ids)
def test_the_list_describes_a_command_as_its_help_begins(listed: Listed) -> None:
    help_ = LazyCommand(listed).loaded().help
    assert listed.help == " ".join(help_.partition("\n\n")[0].split())


def test_every_command_is_in_the_list() -> None:
    apps = {
        each.name: import_module(f"{commands.__name__}.{each.name}") for each in pkgutil.iter_modules(commands.__path__)
    }
    found = {
        (command, name)
        for name, module in apps.items()
        if hasattr(module, "app")
        for command in get_group(module.app).commands
    }
    assert sorted(found) == sorted((each.name, each.module) for each in COMMANDS)


def test_a_command_that_is_typed_is_the_command_itself_and_not_what_stands_for_it() -> None:
    whole = get_command(app)
    context = whole.make_context("understudy", ["providers", "enable", "lead"])
    name, command, rest = whole.resolve_command(context, ["providers", "enable", "lead"])  # type: ignore[attr-defined]
    opened = command.make_context(name, rest, parent=context)
    assert (opened.command_path, sorted(opened.command.commands)) == ("understudy providers", ["disable", "enable"])


def test_a_command_that_does_not_exist_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(Exception, match="Did you mean 'status'"):
        get_command(app).main(args=["statsu"], prog_name="understudy", standalone_mode=False)
