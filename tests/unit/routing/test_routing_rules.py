"""From a request to its chain: data rules, conditions, order, and the variants of weighted steps."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.models.config.settings import Settings
from understudy.models.request.wire import RequestError
from understudy.models.routing.chain import Chain, Step, Variants, When
from understudy.models.routing.data_rules import Rules
from understudy.models.routing.request_options import RouteOptions
from understudy.models.routing.route import Router, configured_chain
from understudy.models.routing.suitability import Suitability


def provider(**tags: Any) -> dict[str, Any]:
    return {"base_url": "http://127.0.0.1:9/v1", "tags": tags}


SETTINGS = Settings.model_validate(
    {
        "providers": {
            "eu": provider(region="eu", zdr=True, owner="e"),
            "ch": provider(region="ch", zdr=False),
            "us": provider(region="us"),
            "silent": provider(),
        },
        "chains": {
            "all": {"steps": ["us/m", "silent/m", "eu/m", "ch/m"]},
            "european": {"steps": ["us/m", "eu/m", "ch/m"], "require": {"region": ["eu", "ch"]}},
            "ab": {
                "steps": [[{"weight": 9, "model": "eu/a"}, {"model": "ch/b", "max_tokens": 5}], "us/m"],
                "order": "cheapest",
            },
            "us-sometimes": {"steps": [["eu/a", "us/a"]], "require": {"region": "eu"}},
            "short": {"steps": [{"model": "eu/m", "when": {"max_input_tokens": 8000}, "max_tokens": 9}, "us/m"]},
        },
    }
)


def resolved(body: dict[str, Any], options: RouteOptions | None = None, name: str = "", **more: Any) -> Chain:
    chain, rest = Router(SETTINGS, options, **more).resolve({"messages": [], **body}, name)
    assert rest == {"messages": []}
    return chain


def refusal(body: dict[str, Any], options: RouteOptions | None = None, **more: Any) -> RequestError:
    with pytest.raises(RequestError) as refused:
        resolved(body, options, **more)
    return refused.value


def test_rules_of_chain_batch_tenant_and_request_are_kept_together() -> None:
    chain = resolved(
        {"chain": "european", "forbid": {"owner": "x"}, "require": {"zdr": True}},
        RouteOptions(require={"region": ["EU", "us"]}),
        rules=Rules(forbid={"owner": ("z",)}),
    )
    assert chain.require == {"region": ("eu",), "zdr": ("true",)}
    assert chain.forbid == {"owner": ("x", "z")}
    assert [str(step) for step in chain.steps] == ["us/m", "eu/m", "ch/m"]


def test_a_chain_that_is_named_as_a_fallback_brings_its_rules() -> None:
    assert resolved({"model": "eu/x", "fallbacks": ["european"]}).require == {"region": ("ch", "eu")}


def test_a_chain_of_which_no_step_keeps_the_rules_is_refused_and_says_who_lacks_what() -> None:
    refused = refusal({"chain": "all", "require": {"region": "uk"}})
    assert refused.message == (
        "the data rules allow no step: "
        "'us/m' breaks the rule require region = uk: provider 'us' has region = us; "
        "'silent/m' breaks the rule require region = uk: provider 'silent' has no tag region; "
        "'eu/m' breaks the rule require region = uk: provider 'eu' has region = eu; and 1 more; "
        "set 'tags' on providers, or change the steps or rules"
    )
    assert (refused.param, refused.code) == ("require", "no_step_allowed")


def test_the_rules_of_a_tenant_alone_can_refuse_a_chain() -> None:
    refused = refusal({"model": "silent/m"}, rules=Rules(forbid={"region": ("us",)}))
    assert "forbid region = us: provider 'silent' has no tag region" in refused.message
    assert refused.param == "forbid"


def test_rules_that_contradict_each_other_are_refused() -> None:
    refused = refusal({"chain": "european", "require": {"region": "us"}})
    assert "the rules that apply have no value of it in common" in refused.message


def test_each_side_of_weighted_steps_must_keep_the_rules_when_nothing_else_does() -> None:
    assert "'us/a' breaks the rule require region = eu" in refusal({"chain": "us-sometimes"}).message
    assert resolved({"chain": "us-sometimes", "fallbacks": ["eu/m"]}).steps[-1] == Step(provider="eu", model="m")


@pytest.mark.parametrize(
    ("word", "value"),
    [("require", "eu"), ("forbid", {"region": []}), ("require", {"region": {"a": 1}}), ("order", "up")],
)
def test_rules_and_orders_that_are_none_are_refused_by_field(word: str, value: object) -> None:
    assert refusal({"model": "eu/m", word: value}).param == word
    with pytest.raises(RequestError) as of_batch:
        RouteOptions.of({word: value})
    assert of_batch.value.param == word


def test_the_order_of_a_request_wins_over_its_batch_and_its_chain() -> None:
    assert resolved({"model": "ab"}).order == "cheapest"
    assert resolved({"model": "ab"}, RouteOptions(order="fastest")).order == "fastest"
    assert resolved({"model": "ab", "order": "chain"}, RouteOptions(order="fastest")).order == "chain"


def test_a_condition_is_not_a_parameter_of_the_request() -> None:
    step = resolved({"model": "short"}).steps[0]
    assert (step.when, step.params) == (When(max_input_tokens=8000), {"max_tokens": 9})
    spoken = resolved({"model": "us/m", "fallbacks": [{"model": "eu/m", "when": {"needs": ["tools"]}, "n": 2}]})
    assert spoken.steps[1] == Step(provider="eu", model="m", when=When(needs=frozenset({"tools"})), params={"n": 2})


@pytest.mark.parametrize(
    "fallback",
    [
        {"model": "eu/m", "when": {"modality": "smell"}},
        {"model": "eu/m", "when": 3},
        {"model": "all", "when": {"modality": "image"}},
        {"model": "eu/m", "weight": 3},
    ],
)
def test_conditions_that_are_none_are_refused(fallback: dict[str, Any]) -> None:
    assert (refusal({"model": "us/m", "fallbacks": [fallback]}).param or "").startswith("fallbacks[0]")


def test_a_job_asks_one_side_of_weighted_steps_and_not_the_other() -> None:
    router = Router(SETTINGS)
    chains = [router.resolve({"model": "ab"}, f"line-{number}")[0] for number in range(5_000)]
    leads = Counter(str(chain.steps[0]) for chain in chains)
    assert set(leads) == {"eu/a", "ch/b"}
    assert 0.88 < leads["eu/a"] / 5_000 < 0.92
    assert all([str(step) for step in chain.steps[1:]] == ["us/m"] for chain in chains)
    assert {chain.steps[0].params.get("max_tokens") for chain in chains if chain.steps[0].model == "b"} == {5}


def test_the_same_name_is_always_on_the_same_side_and_jobs_of_a_side_share_a_chain() -> None:
    names = [f"line-{number}" for number in range(300)]
    first, second = Router(SETTINGS), Router(SETTINGS)
    chains = [first.resolve({"model": "ab"}, name)[0] for name in names]
    assert chains == [second.resolve({"model": "ab"}, name)[0] for name in reversed(names)][::-1]
    assert len({id(chain) for chain in chains}) == 2


def test_other_weights_move_only_the_names_between_them() -> None:
    steps = (Step(provider="eu", model="a"), Step(provider="ch", model="b"))
    before, after = Variants(steps, (9.0, 1.0)), Variants(steps, (8.0, 2.0))
    moved = [
        (before.variant_for(name), after.variant_for(name))
        for name in map(str, range(2_000))
        if before.variant_for(name) != after.variant_for(name)
    ]
    assert set(moved) == {(0, 1)}
    assert 150 < len(moved) < 250


def test_two_groups_choose_independently() -> None:
    one = Variants((Step(provider="eu", model="a"), Step(provider="ch", model="b")), (1.0, 1.0))
    other = Variants((Step(provider="eu", model="c"), Step(provider="ch", model="d")), (1.0, 1.0))
    seen = Counter((one.variant_for(name), other.variant_for(name)) for name in map(str, range(2_000)))
    assert len(seen) == 4
    assert min(seen.values()) > 400


def test_what_lists_deployments_sees_every_side() -> None:
    assert [str(step) for step in configured_chain(SETTINGS, "ab").steps] == ["eu/a", "ch/b", "us/m"]


def test_without_fallbacks_the_first_place_is_still_a_choice() -> None:
    router = Router(SETTINGS)
    chains = [router.resolve({"model": "ab", "allow_fallbacks": False}, str(n))[0].steps for n in range(100)]
    assert {tuple(map(str, steps)) for steps in chains} == {("eu/a",), ("ch/b",)}


tags = st.dictionaries(
    st.sampled_from(["region", "zdr"]), st.sampled_from(["eu", "us", ["eu", "ch"], True, False]), max_size=2
)


@given(tags, tags, tags, st.sampled_from(["all", "european", "ab", "us-sometimes"]), st.text(max_size=5))
def test_whatever_rules_apply_a_chain_is_accepted_only_if_some_step_keeps_all_of_them(
    require: dict[str, Any], forbid: dict[str, Any], of_batch: dict[str, Any], name: str, job: str
) -> None:
    router = Router(SETTINGS, RouteOptions(require=of_batch))
    try:
        chain, _ = router.resolve({"chain": name, "require": require, "forbid": forbid}, job)
    except RequestError as refused:
        assert refused.code == "no_step_allowed"
        return
    assert None in [Suitability(SETTINGS).broken_rule(chain, step) for step in chain.steps]
    assert set(chain.require) >= {*require, *of_batch}
    assert set(chain.forbid) == set(forbid)
