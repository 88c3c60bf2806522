"""What `understudy check` says about chains."""

from typing import Any

from understudy.models.config.settings import Settings
from understudy.producer.cli.commands.check import chain_lines, chain_problems


def settings(**chains: Any) -> Settings:
    tagged = {"base_url": "http://127.0.0.1:9/v1", "tags": {"region": ["eu", "ch"], "zdr": True}}
    return Settings.model_validate({"providers": {"eu": tagged, "openai": {}}, "chains": chains})


def test_tags_steps_order_and_rules_are_shown_in_a_line_each() -> None:
    seen = settings(
        plain={"steps": ["eu/m", {"model": "openai/m", "when": {"modality": "image"}}]},
        full={
            "steps": [[{"weight": 9, "model": "eu/a"}, "eu/b"], "openai/c"],
            "order": "fastest",
            "require": {"region": ["eu", "ch"], "zdr": True},
            "forbid": {"owner": "x"},
        },
    )
    assert list(chain_lines(seen)) == [
        "provider eu: tags region=ch,eu zdr",
        "chain plain: eu/m, then openai/m (some requests)",
        "chain full: eu/a (9) or eu/b (1), then openai/c; fastest first; require region=ch,eu zdr; forbid owner=x",
    ]


def test_a_chain_that_can_never_keep_its_rules_is_a_problem() -> None:
    seen = settings(
        good={"steps": ["openai/m", "eu/m"], "require": {"zdr": True}},
        bad={"steps": ["openai/m", "eu/m"], "require": {"region": "eu"}},
        mixed={"steps": ["openai/m", "eu/n"], "same_model_family": True},
    )
    rules, family = chain_problems(seen)
    assert rules.startswith("chain bad: the data rules allow no step: 'openai/m' breaks the rule require")
    assert "provider 'openai' has no tag region" in rules
    assert "provider 'eu' has region = ch and eu" in rules
    assert family.startswith("chain mixed: 'openai/m' and 'eu/n' are different models")
