"""The routing options of a request: their fields, and errors about them."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, SkipValidation, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from understudy.models.request.wire import RequestError
from understudy.models.routing.chain import When
from understudy.models.routing.policy import RequestPolicy


class RouteOptions(RequestPolicy):
    """The route that a request, a batch or a command line asks for. A field that is null was not given.

    Those of a line are merged over those of its batch, except that a named chain replaces the `model` of a line without
    a chain of its own.
    """

    model_config = ConfigDict(strict=True)

    model: str | None = None
    """`provider/model`, the name of a chain, or a model listed by one provider; of a batch: for lines without one.
    Default: the chain `default`."""
    chain: str | None = None
    """A configured chain, instead of `model`; of a batch: instead of the models of its lines."""
    fallbacks: tuple[Annotated[str | dict[str, Any], SkipValidation], ...] = Field(default=(), strict=False)
    """Models to fall back to: names, or objects with `model` and parameters that override those of the request."""
    allow_fallbacks: bool = True
    """False: use only the first model."""

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Self:
        """The options in these fields. Raises RequestError."""
        try:
            return cls.model_validate(words)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            word = str(first["loc"][0])
            if first["type"] == "value_error":
                raise RequestError(f"'{word}' {first['msg'].removeprefix('Value error, ')}", word) from None
            raise RequestError(f"'{word}' must be {_wanted(word)}", word) from None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {word: value for word, value in given.items() if value is not None or word not in ROUTE_WORDS}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Callers may send null for each option; the defaults of a policy do not apply where a chain sets its own."""
        schema = handler.resolve_ref_schema(handler(core))
        for word in ROUTE_WORDS:
            field = schema["properties"][word]
            about = {"title": field.pop("title"), "description": field.pop("description"), "default": None}
            field.pop("default")
            schema["properties"][word] = {"anyOf": field.get("anyOf") or [field, {"type": "null"}], **about}
        return schema


ROUTE_WORDS = tuple(RouteOptions.model_fields)
"""The fields of a body that are for us and not for the provider."""

NO_OVERRIDES = frozenset({*ROUTE_WORDS, "messages", "input", "stream", "when", "weight"}) - {"model"}
"""What a step of a chain cannot override: the request itself and the routing options."""


@lru_cache
def _wanted(word: str) -> str:
    """What a routing option must be, as the end of a sentence."""
    kind = RouteOptions.model_json_schema()["properties"][word]["anyOf"][0]
    match kind:
        case {"enum": values}:
            return f"one of {', '.join(values)}"
        case {"items": {"enum": values}}:
            return f"a list of {', '.join(values)}"
        case {"type": "array"}:
            return "a list of models"
        case {"type": "string"}:
            return f"the name of a {word}"
        case {"type": "boolean"}:
            return "true or false"
    number = "a number of seconds" if word.endswith("_s") else "a number"
    match kind:
        case {"minimum": low, "maximum": high}:
            return f"{number} from {low:g} to {high:g}"
        case {"minimum": low}:
            return f"{number}, {low:g} or more"
    return number


OUR_WORDS = frozenset(ROUTE_WORDS)

SHORTEST_WORD = 6
"""Shorter options are too similar to provider parameters, such as `models` and `model`."""

ALIKE = 0.85


def refuse_misspelt(document: Iterable[str], ours: frozenset[str] = OUR_WORDS) -> None:
    """Unknown fields are passed to the provider, but a misspelt option of ours must not be dropped silently: a data
    rule would be ignored.
    """
    for field in document:
        meant = None if field in ours else _meant(field[:80], ours)
        if meant is not None:
            raise RequestError(f"unknown field '{field[:80]}'; did you mean '{meant}'?", field[:80])


@lru_cache(maxsize=10_000)
def _meant(field: str, ours: frozenset[str]) -> str | None:
    """Called for every field of a million lines, which have few distinct names."""
    near = get_close_matches(field, [word for word in ours if len(word) >= SHORTEST_WORD], n=1, cutoff=ALIKE)
    return near[0] if near else None


def refuse_misplaced(line: Mapping[str, Any]) -> None:
    """Options next to a line's `body` would be overlooked."""
    for word in sorted(OUR_WORDS & line.keys()):
        raise RequestError(f"'{word}' belongs in 'body'", word)


def when_of(value: object, where: str) -> When | None:
    try:
        return None if value is None else When.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RequestError(f"'{where}{'.' if field else ''}{field}': {first['msg']}", where) from None
