"""Ten lines first, then all, stopped in between; rows added, one corrected: each prompt is paid for once."""

import json
import signal
from collections.abc import Callable

import pytest
from stage_hands import Mock, Scene, digest

pytestmark = pytest.mark.timeout(400)

SLOW = "[answers]\nlatency_s = 0.3\n"


@pytest.mark.slow
def test_each_line_of_a_pipeline_is_paid_for_once(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=10)
    source = scene.write_prompts(100)
    first = scene.run(source, "--limit", "10")
    assert first.exit_code() == 0, first.said
    assert (mock.answered(), len(scene.lines())) == (10, 10)

    everything = scene.run(source)
    everything.until(lambda: mock.answered() >= 40, "some of the others are answered")
    everything.send(signal.SIGINT)
    assert everything.exit_code() == 130, everything.said
    assert "resuming: 10 answered, 90 new" in everything.said
    stopped_at = mock.answered()

    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows[3]["prompt"] = "another prompt"
    rows[50:50] = [{**rows[0], "custom_id": f"more-{number}", "prompt": f"more {number}"} for number in range(5)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = scene.run(source)
    assert refused.exit_code() == 2, refused.said
    assert "1 line (4) has changed since it was answered" in refused.said
    assert mock.answered() == stopped_at

    dry = scene.type("run", source, "-o", str(scene.output), "--dry-run", "--json")
    resumed = json.loads(dry.said)["resumed"]
    assert (resumed["changed"], resumed["answered"] + resumed["not_asked_yet"]) == (1, 99)
    assert resumed["new"] == 5
    updated = scene.run(source, "--update")
    assert updated.exit_code() == 0, updated.said
    assert [line["custom_id"] for line in scene.lines()] == [row["custom_id"] for row in rows]
    prompts = {digest(row["prompt"]) for row in rows} | {digest("prompt 3")}
    assert mock.times_answered() == dict.fromkeys(prompts, 1)
