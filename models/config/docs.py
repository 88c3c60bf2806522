"""Generates `docs/configuration.md` and `docs/understudy.schema.json` from the settings model.

python -m understudy.models.config.docs
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from understudy.models.config.presets import PRESETS
from understudy.models.config.settings import Section, Settings
from understudy.models.failure import FailureClass, FailureTraits
from understudy.models.routing.options import ROUTE_WORDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE_NAME = "configuration.md"
SCHEMA_NAME = "understudy.schema.json"

HEAD = """# Configuration

*Generated from `models/config/settings.py` by `python -m understudy.models.config.docs`; edit that file, not this one.*

Nothing is required: a catalog provider is available when its variable is set in the environment. For anything else,
write `understudy.toml` in the working folder, or name a file with `--config`. `understudy.schema.json`, next to this
page, is its JSON schema, for editors. An unknown key is an error that names the closest known one.

```toml
[providers.openai]
api_keys = ["env.OPENAI_API_KEY", { name = "second", value = "file./run/secrets/openai-2", weight = 0.5 }]
tokens_per_minute = 4_000_000

[providers.local]
kind = "openai"
base_url = "http://127.0.0.1:11434/v1"
models = ["llama3.3"]

[chains.default]
steps = ["openai/gpt-4o-mini", { model = "local/llama3.3", max_tokens = 800 }]
```

The file never contains secrets. A key's `value` says where its secret is: `env.NAME` (a variable), `file./path` (read
again when the file changes), `cmd.program arguments` (its standard output; run without a shell, again every five
minutes). A literal key is rejected.

Durations are in seconds. Command-line options override the environment, and the environment (`REDIS_URL`,
`DATABASE_URL` and variables that begin with `UNDERSTUDY_`) overrides the file. Relative paths are relative to the
working folder. Changes to keys, limits and prices take effect when a worker restarts; a secret that changes behind its
reference takes effect at once.

A request may set its own route with these fields:
OPTIONS.
They override the policy of a configured chain, except that `require` and `forbid` add to the data rules of the chain
and the tenant. A batch keeps the chain and the rules that it was accepted with.
"""


def page() -> str:
    """The whole page as Markdown."""
    tables = (line for model, title in sections().items() for line in _section(title, model))
    options = ", ".join(f"`{word}`" for word in ROUTE_WORDS)
    return "\n".join([HEAD.replace("OPTIONS", options), *tables, *_failure_classes(), *_catalog()])


def sections() -> dict[type[BaseModel], str]:
    """The model of every table that `understudy.toml` may have, with its title, in the order of the fields."""
    found: dict[type[BaseModel], str] = {Settings: "Top level"}
    _add_tables(Settings, "", found)
    return found


def _add_tables(model: type[BaseModel], path: str, found: dict[type[BaseModel], str]) -> None:
    for name, field in model.model_fields.items():
        for inner, key, in_list in _models_in(field.annotation):
            if inner in found:
                continue
            table = path + name + (f".{'MODEL' if path else 'NAME'}" if key else "")
            found[inner] = f"`[[{table}]]`" if in_list else f"`[{table}]`"
            _add_tables(inner, f"{table}.", found)


def _models_in(
    annotation: Any, key: bool = False, in_list: bool = False
) -> Iterator[tuple[type[BaseModel], bool, bool]]:
    """The models that a field may hold; whether they are the values of a table, and whether they are in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, key, in_list
    container = get_origin(annotation)
    for each in get_args(annotation):
        yield from _models_in(each, key or container is dict, in_list or container is tuple)


def schema() -> str:
    """The JSON schema of `understudy.toml`."""
    return json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(title: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"## {title}\n"
    yield " ".join((section.__doc__ or "").split()) + "\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    properties = section.model_json_schema()["properties"]
    for name, field in sorted(section.model_fields.items(), key=lambda named: not named[1].is_required()):
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{name}` | {_type(properties[name])} | {_default(field)} | {meaning} |"
    yield ""


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema type as text."""
    if "anyOf" in schema or "oneOf" in schema:
        words = [_type(each) for each in schema.get("anyOf") or schema["oneOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "failure class" if name == "FailureClass" else "table"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object":
        named = schema.get("patternProperties", {"": schema.get("additionalProperties")})
        return " or ".join(f"table of {_type(each or {})}s" for each in named.values()).replace("texts", "text")
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}.get(
        str(kind), "any"
    )


def _default(field: FieldInfo) -> str:
    default = field.default
    if field.is_required():
        return "required"
    if default is None or default in ((), {}, frozenset()) or isinstance(default, Section):
        return ""
    return f"`{json.dumps(default, default=str)}`"


def _failure_classes() -> Iterator[str]:
    """The enumeration with its comments, which only the source contains."""
    yield "## Failure classes\n"
    yield "The values of `fallback_on`; also shown in results, by `understudy attempts` and at the end of a run.\n"
    yield "| class | meaning | same step again | next step | consequence for other jobs | `understudy retry` |"
    yield "|---|---|---|---|---|---|"
    for name, meaning in re.findall(r'= "(\w+)"  # (.+)', inspect.getsource(FailureClass)):
        traits = FailureClass(name).traits
        again, following = _asked_again(traits), "yes" if traits.falls_back else "no"
        yield f"| `{name}` | {meaning} | {again} | {following} | {_consequence(traits)} | {_rerun(traits)} |"
    yield ""
    yield "*Same step again*: retries within one round; `later`: also in another round, after a pause. *Next step*:"
    yield "unless the chain sets `fallback_on`. *`understudy retry`*: without `--all`.\n"


def _asked_again(traits: FailureTraits) -> str:
    if traits.asks_another_credential:
        return "with another key; later" if traits.transient else "with another key"
    times = ("no", "once", "twice")[traits.retries]
    return f"{times}; later" if traits.transient else times


def _consequence(traits: FailureTraits) -> str:
    if traits.load:
        return "fewer calls for a while"
    if traits.trips_breaker:
        return "several in a row stop calls for a while"
    if not traits.about_credential:
        return ""
    disabled = "the key is disabled until it is fixed" if traits.blocks else "the key is disabled for this model"
    return f"{disabled}; one job at a time tries it" if traits.probed else disabled


def _rerun(traits: FailureTraits) -> str:
    if traits.rerun:
        return "yes"
    return "with another model or chain" if traits.rerun_elsewhere else "no"


def _catalog() -> Iterator[str]:
    yield "## The catalog\n"
    yield "Providers that need neither `kind` nor `base_url`. Bare model names with these prefixes route to them.\n"
    yield "| name | protocol | base URL | key variable | bare model names | note |"
    yield "|---|---|---|---|---|---|"
    for name, preset in PRESETS.items():
        families = ", ".join(f"`{family}…`" for family in preset.families)
        base_url = f"`{preset.base_url}`" if preset.base_url else "yours"
        variable = f"`{preset.env}`" if preset.env else "none needed"
        yield f"| {name} | {preset.kind} | {base_url} | {variable} | {families} | {preset.note} |"
    yield ""


def main() -> None:
    (DOCS / PAGE_NAME).write_text(page(), encoding="utf-8")
    (DOCS / SCHEMA_NAME).write_text(schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
