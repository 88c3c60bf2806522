"""Which rule of the mock's script applies to a request, and the errors of a wrong script."""

import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from understudy.models.config.errors import SettingsError
from understudy.worker.mock.calls import ReceivedCall
from understudy.worker.mock.config import Fail, MockConfig, load_config, parse_config
from understudy.worker.mock.rules import Rulebook


def asked(
    prompt: str = "hello", provider: str = "alpha", model: str = "m-1", key: str = "sk-1", size: int = 100
) -> ReceivedCall:
    return ReceivedCall(provider, "openai", model, key, prompt, sha256(prompt.encode()).digest(), size)


def rulebook(*rules: dict[str, Any], seed: int = 7) -> Rulebook:
    return Rulebook(MockConfig.model_validate({"rules": rules}).rules, seed)


def fate(book: Rulebook, request: ReceivedCall, elapsed_s: float = 0.0) -> Fail | None:
    rule = book.decide(request, elapsed_s).rule
    return rule.fail if rule else None


@pytest.mark.parametrize(
    ("matcher", "hit", "miss"),
    [
        ({"provider": "alpha"}, asked(provider="alpha"), asked(provider="alphabet")),
        ({"provider": "al*"}, asked(provider="alphabet"), asked(provider="beta")),
        ({"model": "gpt-?"}, asked(model="gpt-5"), asked(model="gpt-55")),
        ({"message": "poi.on"}, asked("some poison here"), asked("some potion here")),
        ({"key": "sk-2"}, asked(key="sk-2"), asked(key="sk-1")),
        ({"min_bytes": 100}, asked(size=100), asked(size=99)),
        ({"max_bytes": 100}, asked(size=100), asked(size=101)),
    ],
)
def test_a_rule_fires_only_for_what_it_matches(matcher: dict[str, Any], hit: ReceivedCall, miss: ReceivedCall) -> None:
    book = rulebook({**matcher, "fail": "server"})
    assert fate(book, hit) is Fail.SERVER
    assert fate(book, miss) is None


def test_all_matchers_of_a_rule_must_hold() -> None:
    book = rulebook({"provider": "alpha", "model": "big", "fail": "quota"})
    assert fate(book, asked(model="big")) is Fail.QUOTA
    assert fate(book, asked(model="small")) is None


def test_the_first_rule_that_fires_decides_and_one_that_does_not_fire_leaves_it_to_the_next() -> None:
    book = rulebook({"first": 1, "fail": "server"}, {"provider": "alpha", "fail": "quota"}, {"fail": "overloaded"})
    assert [fate(book, asked()) for _ in range(3)] == [Fail.SERVER, Fail.QUOTA, Fail.QUOTA]
    assert fate(book, asked(provider="beta")) is Fail.OVERLOADED


def test_first_counts_requests_that_match_and_no_others() -> None:
    book = rulebook({"provider": "alpha", "first": 2, "fail": "server"})
    fates = [fate(book, asked(provider=name)) for name in ("beta", "alpha", "beta", "alpha", "alpha")]
    assert fates == [None, Fail.SERVER, None, Fail.SERVER, None]


def test_first_per_prompt_fails_every_prompt_once_at_every_provider() -> None:
    book = rulebook({"first_per_prompt": 1, "fail": "server"})
    order = [asked("a"), asked("b"), asked("a"), asked("b"), asked("a", provider="beta")]
    assert [fate(book, each) for each in order] == [Fail.SERVER, Fail.SERVER, None, None, Fail.SERVER]


def test_between_includes_its_start_and_excludes_its_end() -> None:
    book = rulebook({"between": [10.0, 30.0], "fail": "unavailable"})
    fates = [fate(book, asked(), at) for at in (9.9, 10.0, 29.9, 30.0)]
    assert fates == [None, Fail.UNAVAILABLE, Fail.UNAVAILABLE, None]


def test_probability_holds_over_many_prompts() -> None:
    book = rulebook({"probability": 0.3, "fail": "server"})
    failed = sum(fate(book, asked(f"prompt {number}")) is not None for number in range(5000))
    assert 1350 < failed < 1650


def test_a_retried_prompt_draws_again() -> None:
    book = rulebook({"probability": 0.5, "fail": "server"})
    fates = {fate(book, asked("the same")) for _ in range(50)}
    assert fates == {None, Fail.SERVER}


def test_equal_seeds_give_equal_fates_in_any_order_of_arrival() -> None:
    rules = ({"probability": 0.4, "fail": "server"}, {"weight": 1, "fail": "html"}, {"weight": 2, "fail": "empty"})
    prompts = [f"prompt {number}" for number in range(300)] * 2
    shuffled = random.Random(1).sample(prompts, len(prompts))

    def fates(order: list[str], seed: int) -> dict[str, list[str]]:
        book, seen = rulebook(*rules, seed=seed), {}
        for prompt in order:
            seen.setdefault(prompt, []).append(str(fate(book, asked(prompt))))
        return seen

    assert fates(prompts, 7) == fates(shuffled, 7)
    assert fates(prompts, 7) != fates(prompts, 8)


def test_the_key_that_carries_a_prompt_does_not_change_its_fate() -> None:
    one, other = (rulebook({"probability": 0.5, "fail": "server"}) for _ in range(2))
    prompts = [f"prompt {number}" for number in range(100)]
    assert [fate(one, asked(p, key="sk-1")) for p in prompts] == [fate(other, asked(p, key="sk-2")) for p in prompts]


def test_of_neighbours_with_equal_matchers_one_is_drawn_by_weight() -> None:
    book = rulebook(
        {"provider": "alpha", "weight": 8},
        {"provider": "alpha", "weight": 1, "fail": "server"},
        {"provider": "alpha", "weight": 1, "fail": "html"},
        {"fail": "quota"},
    )
    fates = [fate(book, asked(f"prompt {number}")) for number in range(4000)]
    assert fates.count(Fail.QUOTA) == 0  # a rule without `fail` answers, and ends the search
    assert 3000 < fates.count(None) < 3400
    assert 320 < fates.count(Fail.SERVER) < 480
    assert 320 < fates.count(Fail.HTML) < 480
    assert fate(book, asked(provider="beta")) is Fail.QUOTA


def test_weights_of_different_matchers_are_separate_draws() -> None:
    book = rulebook(
        {"provider": "alpha", "weight": 1, "fail": "server"}, {"provider": "beta", "weight": 9, "fail": "html"}
    )
    assert {fate(book, asked(str(number))) for number in range(50)} == {Fail.SERVER}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"rules": [{}, {"probability": 2}]}, ["script.toml: rules[1].probability should be less than or equal to 1"]),
        (
            {"rules": [{"retry_after": 2}]},
            ["rules[0].retry_after is not a setting", "did you mean 'retry_after_s'?"],
        ),
        ({"rules": [{"fail": "explode"}]}, ["rules[0].fail", "'rate_limit'"]),
        ({"rules": [{"message": "("}]}, ["rules[0].message is not a regular expression"]),
        ({"rules": [{"between": [3.0, 1.0]}]}, ["rules[0] between must be [from, to]"]),
        ({"rules": [{"latency_s": {"kind": "gamma"}}]}, ["rules[0].latency_s must have the kind lognormal or uniform"]),
        (
            {"rules": [{"latency_s": {"kind": "uniform", "low": 2, "high": 1}}]},
            ["latency_s high must not be below low"],
        ),
        ({"limits": [{"provider": "alpha"}]}, ["limits[0] requests_per_minute or tokens_per_minute is missing"]),
        ({"answers": {"text": "{promt}"}}, ["answers.text contains {promt}, which is not one of"]),
        ({"sed": 1}, ["script.toml: sed is not a setting", "did you mean 'seed'?"]),
    ],
)
def test_a_wrong_script_is_refused_in_one_sentence_that_names_the_place(document: Any, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_config(document, Path("script.toml"))
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_a_script_that_cannot_be_read_or_parsed_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read: No such file"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("seed = = 3")
    with pytest.raises(SettingsError, match=r"broken\.toml is not valid TOML"):
        load_config(tmp_path / "broken.toml")


def test_the_tour_in_the_examples_is_a_valid_script() -> None:
    tour = load_config(Path(__file__).parents[3] / "examples" / "mock.toml")
    assert len(tour.rules) > 5
    assert tour.limits
    assert tour.dialects == {"gamma": "groq"}
