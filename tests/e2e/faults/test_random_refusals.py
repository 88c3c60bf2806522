"""A provider that refuses four of ten calls by chance, whatever the rate: no job waits long for it."""

from collections.abc import Callable

import pytest
from stage_hands import Mock, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JOBS = 300
SHARE = 0.4
SCRIPT = """
[[rules]]
provider = "{provider}"
fail = "{fail}"
probability = {share}

[answers]
latency_s = 0.2
"""
THREE_STEPS = """
[providers.overload]
kind = "anthropic"
base_url = "{mock}/overload"

[providers.gamma]
kind = "openai"
base_url = "{mock}/gamma/v1"

[chains.three]
steps = ["{lead}/m", "beta/m", "gamma/m"]
patience_s = {patience_s}
"""
REFUSALS = [
    pytest.param("alpha", "rate_limit_no_hint", 429, id="429"),
    pytest.param("alpha", "unavailable", 503, id="503"),
    pytest.param("overload", "overloaded", 529, id="529"),
]
ENDS_WITHIN_S = 120.0
"""Two seconds of calls, an unlucky start, and a busy machine. At a call a second, to which a refusal could bring the
lead, it would take five minutes."""


def arranged(scene: Scene, providers: Callable[[str], Mock], lead: str, fail: str, patience_s: float = 0.0) -> Mock:
    mock = providers(SCRIPT.format(provider=lead, fail=fail, share=SHARE))
    more = THREE_STEPS.format(mock=mock.url, lead=lead, patience_s=patience_s)
    scene.configure(mock, concurrency=30, more=more)
    return mock


def answered_by(scene: Scene) -> dict[str, int]:
    rows = scene.ledger.rows("SELECT provider, count(*) many FROM result GROUP BY provider")
    return {row.provider: row.many for row in rows}


def assert_all_answered(scene: Scene, lead: str, status: int) -> None:
    assert scene.ledger.states() == {"succeeded": JOBS}
    refused = scene.ledger.rows("SELECT DISTINCT provider, status FROM attempt WHERE failure IS NOT NULL")
    assert {(row.provider, row.status) for row in refused} == {(lead, status)}


@pytest.mark.parametrize(("lead", "fail", "status"), REFUSALS)
def test_without_patience_later_steps_take_what_the_lead_refuses_by_chance(
    scene: Scene, providers: Callable[[str], Mock], lead: str, fail: str, status: int
) -> None:
    arranged(scene, providers, lead, fail)
    run = scene.run(scene.write_prompts(JOBS, model="three"))
    assert run.exit_code(ENDS_WITHIN_S) == 0, run.said
    assert_all_answered(scene, lead, status)
    by = answered_by(scene)
    assert by.get(lead, 0) > 0 and by.get("beta", 0) > 0 and by.get("gamma", 0) == 0, by


@pytest.mark.parametrize(("lead", "fail", "status"), REFUSALS)
def test_a_chain_of_one_step_is_used_at_what_it_accepts(
    scene: Scene, providers: Callable[[str], Mock], lead: str, fail: str, status: int
) -> None:
    arranged(scene, providers, lead, fail)
    run = scene.run(scene.write_prompts(JOBS, model=f"{lead}/m"))
    assert run.exit_code(ENDS_WITHIN_S) == 0, run.said
    assert_all_answered(scene, lead, status)
    assert scene.ledger.count("attempt") < JOBS / (1 - SHARE) * 1.3, "refusals cost what chance makes them cost"
