"""What tenants may use: chains and models by name; and models whose cost a budget could not know."""

from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.request.wire import NOT_ALLOWED, RequestError
from understudy.models.routing.allowlist import NO_PRICE, Allowed, allowed_name
from understudy.models.routing.chain import Chain, Step
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.request_options import RouteOptions
from understudy.models.routing.route import Router, under_rules

FREE = {"m": {"input": 0, "output": 0}}
SETTINGS = Settings.model_validate(
    {
        "providers": {
            "one": {"base_url": "http://127.0.0.1:9/v1", "models": ["m"], "prices": FREE},
            "two": {"base_url": "http://127.0.0.1:9/v1", "models": ["n"], "prices": FREE},
            "capped": {"base_url": "http://127.0.0.1:9/v1", "prices": FREE, "budget_usd_per_day": 5},
        },
        "chains": {
            "default": {"steps": ["one/m", "two/dear"]},
            "fast": {"steps": ["two/m", {"model": "one/big", "max_tokens": 10}]},
            "sides": {"steps": [["one/m", "two/dear"]]},
            "small": {"steps": ["one/m"]},
        },
    }
)


def asked(allow: tuple[str, ...] | None, *, payer: str | None = None, **body: Any) -> list[str]:
    router = Router(SETTINGS, rules=Rules(allow=allow, payer=payer))
    return [str(step) for step in router.resolve({"messages": [], **body})[0].steps]


def refused(allow: tuple[str, ...] | None, *, payer: str | None = None, **body: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        asked(allow, payer=payer, **body)
    return error.value


@pytest.mark.parametrize(
    ("allow", "body", "steps"),
    [
        (("fast",), {"model": "fast"}, ["two/m", "one/big"]),
        (("fast",), {"chain": "fast", "fallbacks": ["fast"]}, ["two/m", "one/big"]),
        (("one/m",), {"model": "m"}, ["one/m"]),
        (("one/m",), {"model": "small"}, ["one/m"]),
        (("one/*",), {"model": "one/whatever", "fallbacks": [{"model": "one/m", "max_tokens": 5}]}, None),
        (("one/m", "fast"), {"model": "one/m", "fallbacks": ["fast"]}, ["one/m", "two/m", "one/big"]),
        (None, {}, ["one/m", "two/dear"]),
        (("default",), {}, ["one/m", "two/dear"]),
    ],
)
def test_what_is_allowed_by_its_name_is_asked(
    allow: tuple[str, ...] | None, body: dict[str, Any], steps: list[str] | None
) -> None:
    assert asked(allow, **body) == (steps or ["one/whatever", "one/m"])


@pytest.mark.parametrize(
    ("allow", "body", "param"),
    [
        (("fast",), {"model": "one/big"}, "model"),  # a step of an allowed chain, without the chain's parameters for it
        (("fast",), {}, "model"),
        (("one/m",), {"model": "default"}, "model"),  # its second step
        (("one/m",), {"chain": "default"}, "chain"),
        (("one/m",), {"model": "sides"}, "model"),
        (("one/m",), {"model": "one/m", "fallbacks": ["two/n"]}, "fallbacks[0]"),
        (("one/m",), {"model": "one/m", "fallbacks": ["one/m", {"model": "n", "max_tokens": 5}]}, "fallbacks[1]"),
        (("one/m",), {"model": "one/m", "fallbacks": ["fast"]}, "fallbacks[0]"),
        (("one/m",), {"model": "one/M"}, "model"),
        (("one/m",), {"model": "one/m:online"}, "model"),
        (("one/*",), {"model": "one2/m"}, "model"),
        (("one/m",), {"model": "one/m", "models": ["dear"]}, "models"),
        (("one/m",), {"model": "one/m", "fallbacks": [{"model": "one/m", "models": ["dear"]}]}, "models"),
        ((), {"model": "one/m"}, "model"),
    ],
)
def test_everything_else_is_refused_wherever_it_is_named(
    allow: tuple[str, ...], body: dict[str, Any], param: str
) -> None:
    error = refused(allow, **body)
    assert (error.code, error.param) == (NOT_ALLOWED, param)


def test_who_may_not_use_a_model_cannot_find_out_whether_it_is_there() -> None:
    for real, unreal in (("two/n", "three/n"), ("fast", "slow"), ("n", "p")):
        there, nowhere = refused(("one/m",), model=real).message, refused(("one/m",), model=unreal).message
        assert there.replace(f"'{real}'", "X") == nowhere.replace(f"'{unreal}'", "X")
    assert refused(("one/m",), chain="slow").message == (
        "this tenant may not use 'slow'; it may use one/m (GET /v1/models)"
    )


def test_the_words_of_a_batch_are_bound_like_those_of_its_lines() -> None:
    for route in (
        RouteOptions(model="two/n"),
        RouteOptions(chain="fast"),
        RouteOptions(model="one/m", fallbacks=("two/n",)),
    ):
        with pytest.raises(RequestError, match="may not use"):
            Router(SETTINGS, route, rules=Rules(allow=("one/m",))).resolve({"messages": []})


def test_an_accepted_chain_is_tried_again_while_its_steps_are_allowed_by_any_name() -> None:
    chain = Chain(steps=(Step(provider="two", model="m"), Step(provider="one", model="big")))
    assert under_rules(SETTINGS, chain, Rules(allow=("fast",))) == chain
    with pytest.raises(RequestError, match="may not use 'one/big'"):
        under_rules(SETTINGS, chain, Rules(allow=("two/*",)))


def test_names_with_a_typing_error_never_become_a_list_that_shuts_a_tenant_out() -> None:
    assert [allowed_name(SETTINGS, name) for name in ("fast", " one/m ", "n", "one/*")] == [
        "fast",
        "one/m",
        "two/n",
        "one/*",
    ]
    for wrong, said in (
        ("fsat", "did you mean the chain 'fast'"),
        ("onee/m", "did you mean 'one'"),
        ("one/gpt-*", "write 'one/*'"),
        ("*", "neither a chain nor a model"),
        ("", "must be"),
    ):
        with pytest.raises(ValueError, match=said.replace("*", r"\*")):
            allowed_name(SETTINGS, wrong)


def test_a_list_may_name_what_the_configuration_does_not_list() -> None:
    allowed = Allowed(SETTINGS, ("one/*", "two/special"))
    assert (allowed.models, allowed.chain("small"), allowed.chain("default")) == (["two/special"], True, False)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "one/m-2026-11-30"},
        {"model": "one/m", "fallbacks": ["one/other"]},
        {"model": "default"},
        {"model": "sides"},
    ],
)
def test_where_a_budget_holds_a_model_without_a_price_is_refused(body: dict[str, Any]) -> None:
    asked(None, **body)
    error = refused(None, payer="tenant 'acme'", **body)
    assert (error.code, error.param) == (NO_PRICE, "model")
    assert "the budget of tenant 'acme' cannot account for it" in error.message
    assert "under [providers." in error.message
    with pytest.raises(RequestError, match="the budget of the batch"):
        Router(SETTINGS, rules=NO_RULES.with_budget(1.0)).resolve({"messages": [], **body})


def test_what_is_free_has_a_price_and_the_budget_of_a_provider_holds_for_its_own_models() -> None:
    assert asked(None, payer="tenant 'acme'", model="one/m") == ["one/m"]
    assert asked(None, model="capped/m", fallbacks=["one/other"]) == ["capped/m", "one/other"]
    assert "the budget of provider 'capped'" in refused(None, model="one/m", fallbacks=["capped/other"]).message


def test_under_a_budget_no_word_lets_the_provider_choose_a_model() -> None:
    assert asked(None, model="one/m", models=["dear"]) == ["one/m"]
    assert refused(None, payer="tenant 'acme'", model="one/m", models=["dear"]).param == "models"
