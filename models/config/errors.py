"""Configuration errors as one sentence: file, line, field, remedy. Values are never repeated: any of them may be a
secret pasted into the wrong place.

    SettingsError
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from understudy.models.config.presets import PRESETS
from understudy.models.errors import WrongUse, suggestion
from understudy.models.routing.request_options import NO_OVERRIDES

if TYPE_CHECKING:
    from understudy.models.config.provider_settings import Provider
    from understudy.models.config.settings import Settings, StepConfig

Location = tuple[int | str, ...]
Problem = tuple[Location, str]

STEP, VARIANTS = "[step]", "[variants]"
"""Pydantic's tags for the kinds of entries in a chain's steps. It puts such tags into error locations, which omit
them."""

TAG = re.compile(r"\[(?!key\])\w+\]")

HEADER = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
ASSIGNMENT = re.compile(r"""^\s*([A-Za-z0-9_."' -]+?)\s*=""")


class SettingsError(WrongUse):
    """The configuration is invalid. One sentence, without values."""

    @classmethod
    def at(cls, path: Path, text: str, location: Location, message: str) -> "SettingsError":
        line = line_of(text, location)
        place = f"{path}, line {line}" if line else str(path)
        return cls(f"{place}: {dotted(location)} {message}")


def dotted(location: Sequence[int | str]) -> str:
    """A location in dotted form: providers.openai.api_keys[0].value"""
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]"]
    return "".join(words).removeprefix(".")


def explain(error: ValidationError, model: type[BaseModel], path: Path, text: str) -> SettingsError:
    """The first validation error as a sentence."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    location: Location = tuple(part for part in first["loc"] if not TAG.fullmatch(str(part)))
    return SettingsError.at(path, text, location, _message(first["type"], first["msg"], location, model))


def _message(kind: str, message: str, location: Location, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return f"is not a setting{suggestion(str(location[-1]), _known_keys(model, location[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch" and location[-1] == "base_url":
        return "must begin with http:// or https://"
    if kind == "string_pattern_mismatch":
        return "must consist of letters, digits, '_', '.' and '-', at most 64"
    message = re.sub(r" or instance of \w+$", "", message)  # a file has no instances
    return message.replace("Input should", "should", 1).replace("dictionary", "table")


def _known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """The fields of the section at `location`."""
    kind: Any = model
    for part in location:
        section = _section(kind)
        kind = (
            section.model_fields[str(part)].annotation
            if section
            else get_args(kind)[-1 if isinstance(part, str) else 0]
        )
    section = _section(kind)
    return sorted(section.model_fields) if section else []


def _section(kind: Any) -> type[BaseModel] | None:
    """The model behind an annotation: `Annotated[M, …]` and `M | None` are M."""
    if isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, BaseModel):
        return kind
    if hasattr(kind, "__metadata__"):
        return _section(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return next((found for each in get_args(kind) if (found := _section(each))), None)
    return None


def line_of(text: str, location: Location) -> int | None:
    """The line (from 1) of a TOML text nearest to a field, or None if no part of its path is present."""
    best, best_depth = None, 0
    table: Location = ()
    arrays: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            name = _keys(header[1])
            if line.lstrip().startswith("[["):
                table = (*name, arrays[header[1]])
                arrays[header[1]] += 1
            else:
                table = name
            found = table
        elif assignment := ASSIGNMENT.match(line):
            found = (*table, *_keys(assignment[1]))
        else:
            continue
        if len(found) > best_depth and location[: len(found)] == found:
            best, best_depth = number, len(found)
    return best


def _keys(dotted_name: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted_name.split("."))


def problem(settings: "Settings") -> Problem | None:
    """The first error in settings whose fields are all valid individually."""
    return next(_problems(settings), None)


def _problems(settings: "Settings") -> Iterator[Problem]:
    for name, provider in settings.providers.items():
        yield from _provider_problems(name, provider)
    for chain, config in settings.chains.items():
        if config.conflict is not None:
            field, reason = config.conflict
            yield ("chains", chain, field), reason
        for index, (entry, variants) in enumerate(zip(config.steps, config.places, strict=True)):
            location = ("chains", chain, "steps", index)
            for step in variants:
                yield from ((location, reason) for reason in _step_problems(settings, step))
            if not isinstance(entry, tuple) and "weight" in entry.model_fields_set:
                yield location, "has a weight outside a list; weighted steps are a list: [{ weight = 9, … }, { … }]"


def _provider_problems(name: str, provider: "Provider") -> Iterator[Problem]:
    location = ("providers", name)
    if provider.preset is not None and provider.preset not in PRESETS:
        yield (*location, "preset"), f"is not in the catalog{suggestion(provider.preset, PRESETS)}"
    preset = PRESETS.get(provider.preset or name)
    if provider.base_url is None and (preset is None or preset.base_url is None):
        example = preset.note if preset else 'base_url = "https://…/v1" and, if it is not "openai", its kind'
        yield location, f"needs a base_url, because the catalog has none for it: {example}"
    for key, count in Counter(each.name for each in provider.api_keys).items():
        if count > 1:
            yield (*location, "api_keys"), f"has {count} keys named '{key}'; give each its own name"
    accounts = {each.account or each.name for each in provider.api_keys}
    for index, limit in enumerate(provider.limits):
        if limit.account is not None and limit.account not in accounts:
            unknown = f"is not an account of its keys{suggestion(limit.account, accounts)}"
            yield (*location, "limits", index, "account"), unknown


def _step_problems(settings: "Settings", step: "StepConfig") -> Iterator[str]:
    reason = _name_problem(settings, step.model)
    if reason:
        yield reason
    for param in sorted(NO_OVERRIDES & step.params.keys()):
        yield f"cannot override '{param}'"


def _name_problem(settings: "Settings", model: str) -> str | None:
    provider, slash, name = model.partition("/")
    if not slash or not provider or not name:
        listed = [each for each, known in settings.providers.items() if model in known.models]
        return None if len(listed) == 1 else "must be 'provider/model'"
    if provider in settings.providers:
        return None
    if preset := PRESETS.get(provider):
        remedy = f"set {preset.env} or add" if preset.env else "add"
        return f"names provider '{provider}', which is not configured; {remedy} [providers.{provider}]"
    return f"names provider '{provider}', which is unknown{suggestion(provider, {*settings.providers, *PRESETS})}"
