"""One key of three is refused with a hint: every worker respects the hint, and the other keys continue."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from stage_hands import Mock, Scene, until

HINT_S = 3.0
KNOWN_TO_ALL_S = 0.1
"""By then every worker sees the cooldown; what another sent in the same moment could not know of it."""

KEYS = ("one", "two", "three")
SCRIPT = f"""
[answers]
latency_s = 0.05

[[rules]]
key = "sk-one"
fail = "rate_limit"
retry_after_s = {HINT_S}
first = 1
"""


@pytest.mark.parametrize("scene", [pytest.param("servers", marks=pytest.mark.servers)], indirect=True)
def test_a_refused_key_rests_in_all_workers_as_long_as_it_was_told_and_the_others_do_not(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    listed = ", ".join(f'{{ name = "{key}", value = "env.TRIO_{key.upper()}" }}' for key in KEYS)
    scene.environment |= {f"TRIO_{key.upper()}": f"sk-{key}" for key in KEYS}
    mock = providers(SCRIPT)
    trio = f'[providers.trio]\nkind = "openai"\nbase_url = "{mock.url}/trio/v1"\n'
    scene.configure(mock, more=f"{trio}requests_per_minute = 600\napi_keys = [{listed}]\n")
    for _ in range(2):
        scene.worker()
    until(lambda: scene.ledger.count("worker") == 2, "both workers are there")
    scene.submit(scene.write_prompts(200, model="trio/m"))
    until(lambda: scene.ledger.ended() == 200, "all jobs end")

    rows = scene.ledger.rows(
        "SELECT attempt.key, failure, attempt.started_at AS began, latency_ms, worker_id"
        " FROM attempt JOIN job ON job.id = attempt.job_id ORDER BY attempt.started_at"
    )
    (refused,) = [row for row in rows if row.failure is not None]
    assert (refused.key, refused.failure) == ("one", "rate_limit")
    told_at = refused.began + refused.latency_ms / 1000
    rest = [row for row in rows if told_at + KNOWN_TO_ALL_S < row.began < told_at + HINT_S - KNOWN_TO_ALL_S]
    assert {row.key for row in rest} == {"two", "three"}
    assert len({row.worker_id for row in rest}) == 2
    assert max(b.began - a.began for a, b in pairwise(rest)) < 1.0
    assert any(row.key == "one" and row.began > told_at + HINT_S - KNOWN_TO_ALL_S for row in rows)
