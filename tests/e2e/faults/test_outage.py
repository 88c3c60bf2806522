"""A provider refuses or is down for a while: its jobs wait in the ledger, other jobs do not, and nothing fails."""

import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from stage_hands import Mock, Scene, digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time

OUTAGE_S = 12.0
"""At least: until the other provider's jobs are done."""

PATIENCE_S = 120.0
"""After an outage a provider is tried again at doubled distances."""

DOWN = ["unavailable", "server", "drop"]
QUICK = "[answers]\nlatency_s = 0.1\n"
OUTAGE = (
    QUICK
    + """
[[rules]]
provider = "alpha"
fail = "{fail}"
"""
)


def prompts_for_both(scene: Scene, each: int) -> Path:
    alpha = scene.write_prompts(each, model="alpha/m", name="alpha.jsonl", label="a-").read_text()
    beta = scene.write_prompts(each, model="beta/m", name="beta.jsonl", label="b-").read_text()
    both = scene.folder / "both.jsonl"
    both.write_text(alpha + beta)
    return both


@pytest.mark.parametrize("fail", DOWN)
def test_an_outage_fails_no_job_of_a_one_step_chain_and_delays_no_other(
    scene: Scene, providers: Callable[[str], Mock], fail: str
) -> None:
    mock = providers(OUTAGE.format(fail=fail))
    scene.configure(mock, concurrency=10)
    run = scene.run(prompts_for_both(scene, 150))
    run.until(lambda: mock.stats()["requests"] > 0, "calls are made")
    until = time.monotonic() + OUTAGE_S
    run.until(
        lambda: scene.ledger.count("job WHERE custom_id LIKE 'b-%' AND state = 'succeeded'") == 150,
        "the other provider's jobs are done while this one is out",
    )
    run.until(lambda: time.monotonic() > until, "the outage has lasted a while")
    assert scene.ledger.count("job WHERE custom_id LIKE 'a-%' AND ended_at IS NOT NULL") == 0
    httpx.post(f"{mock.url}/config", json=tomllib.loads(QUICK)).raise_for_status()
    assert run.exit_code(PATIENCE_S) == 0, run.said
    assert scene.ledger.states() == {"succeeded": 300}
    assert len(scene.lines()) == 300
    answered = mock.times_answered()
    assert all(answered[digest(f"a-prompt {number}")] == 1 for number in range(150))


def test_a_provider_that_refuses_everything_for_a_while_fails_no_job_and_is_used_again(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(QUICK)
    scene.configure(mock, concurrency=10)
    run = scene.run(scene.write_prompts(500))
    run.until(lambda: mock.answered() >= 100, "some prompts are answered")
    refusing = {"rules": [{"between": [0.0, 6.0], "fail": "rate_limit_no_hint"}], **tomllib.loads(QUICK)}
    httpx.post(f"{mock.url}/config", json=refusing).raise_for_status()
    assert run.exit_code(PATIENCE_S) == 0, run.said
    assert scene.ledger.states() == {"succeeded": 500}
    assert mock.stats()["providers"]["alpha"]["statuses"]["429"] >= 1
    assert set(mock.times_answered().values()) == {1}
