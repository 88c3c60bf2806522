"""Data rules: what they mean, how several combine, and which providers break them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.models.routing.data_rules import NO_RULES, Rules, parse_pairs, parse_tags, shown

EU = Rules(require={"region": ("eu",)})


def broken(rules: Rules, tags: dict[str, Any] | None) -> str | None:
    return rules.broken_by("lead", None if tags is None else parse_tags(tags))


def test_a_provider_with_the_required_value_may_be_asked() -> None:
    assert broken(EU, {"region": "eu", "zdr": True}) is None
    assert (
        broken(Rules(require=parse_tags({"region": ["eu", "ch"], "zdr": True})), {"region": "ch", "zdr": True}) is None
    )


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"region": "us"}, "require region = eu: provider 'lead' has region = us"),
        ({"zdr": True}, "require region = eu: provider 'lead' has no tag region"),
        (None, "require region = eu: provider 'lead' has no tag region"),
    ],
)
def test_a_provider_with_another_value_or_without_the_tag_breaks_what_is_required(
    tags: dict[str, Any] | None, sentence: str
) -> None:
    assert broken(EU, tags) == sentence


def test_one_that_may_use_several_regions_must_be_allowed_all_of_them() -> None:
    assert broken(EU, {"region": ["eu", "us"]}) == "require region = eu: provider 'lead' has region = eu and us"
    assert broken(Rules(require={"region": ("ch", "eu", "uk")}), {"region": ["eu", "ch"]}) is None


def test_what_is_forbidden_must_be_denied_by_the_provider_itself() -> None:
    no_us = Rules(forbid={"region": ("us",)})
    assert broken(no_us, {"region": "eu"}) is None
    assert broken(no_us, {"region": ["eu", "us"]}) == "forbid region = us: provider 'lead' has region = eu and us"
    assert broken(no_us, {}) == "forbid region = us: provider 'lead' has no tag region"


def test_no_is_an_answer_but_not_to_a_rule_that_wants_yes() -> None:
    assert broken(Rules(require={"zdr": ("true",)}), {"zdr": False}) is not None
    assert broken(Rules(forbid={"trains": ("true",)}), {"trains": False}) is None


def test_upper_and_lower_case_are_one() -> None:
    assert broken(Rules(forbid=parse_tags({"Region": "US"})), {"REGION": "us"}) is not None
    assert broken(Rules(require=parse_tags({"region": "EU"})), {"region": "eu"}) is None


def test_rules_of_several_hold_together() -> None:
    merged = Rules({"region": ("ch", "eu")}, {"owner": ("x",)}).merged(
        Rules({"region": ("eu", "uk"), "zdr": ("true",)}, {"owner": ("y",)}), NO_RULES
    )
    assert merged == Rules({"region": ("eu",), "zdr": ("true",)}, {"owner": ("x", "y")})


def test_requirements_without_a_common_value_are_satisfied_by_no_provider() -> None:
    merged = EU.merged(Rules(require={"region": ("us",)}))
    assert broken(merged, {"region": "eu"}) == "require region: the rules that apply have no value of it in common"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("eu", "must be a table of tags"),
        ({"region": ""}, "must set 'region' to a text"),
        ({"region": []}, "must set 'region' to a text"),
        ({"region": 3}, "must set 'region' to a text"),
        ({"region": {"eu": 1}}, "must set 'region' to a text"),
        ({"region": ["eu", None]}, "must set 'region' to a text"),
        ({"re gion": "eu"}, "an invalid tag name"),
        ({"region": "eu", "Region": "us"}, "has the tag 'region' twice"),
    ],
)
def test_invalid_tags_are_rejected(value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_tags(value)


def test_a_command_line_says_tags_in_pairs() -> None:
    assert parse_pairs(["region=EU, ch", "zdr"]) == {"region": ("ch", "eu"), "zdr": ("true",)}
    assert shown(parse_pairs(["region=eu,ch", "zdr"])) == "region=ch,eu zdr"
    with pytest.raises(ValueError, match="twice; give all its values at once"):
        parse_pairs(["region=eu", "region=ch"])


values = st.frozensets(st.sampled_from(["eu", "ch", "us"]), min_size=1).map(lambda each: tuple(sorted(each)))
tags = st.dictionaries(st.sampled_from(["region", "zdr"]), values)
some_rules = st.builds(Rules, tags, tags)


@given(some_rules, some_rules, tags)
def test_merged_rules_are_kept_by_exactly_those_who_keep_each_of_them(one: Rules, other: Rules, of: Any) -> None:
    kept_both = one.broken_by("x", of) is None and other.broken_by("x", of) is None
    assert (one.merged(other).broken_by("x", of) is None) == kept_both


@given(some_rules, tags)
def test_a_tag_that_is_not_there_never_helps(asked: Rules, of: Any) -> None:
    if asked.broken_by("x", of) is None:
        assert set(of) >= {*asked.require, *asked.forbid}
