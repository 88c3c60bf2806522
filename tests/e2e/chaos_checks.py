"""What must be true after a chaos run, read from the API as a caller does, and from the tables directly."""

import json
from collections import Counter
from typing import Any

import httpx
from chaos_load import REFUSED, Accepted, mark_of
from chaos_world import World

PRICES_USD = {"alpha": (1000e-6, 2000e-6), "beta": (3000e-6, 4000e-6)}


def assert_nothing_was_lost_or_doubled(world: World, accepted: Accepted) -> dict[str, int]:
    """Returns figures for the log."""
    _assert_each_job_ended_once(world, accepted)
    with httpx.Client(base_url=world.url, timeout=60) as http:
        for batch_id, prompts in accepted.batches.items():
            _assert_batch_is_whole(http, batch_id, prompts)
    return _assert_calls_are_accounted_for(world)


def expected_state(prompt: str) -> str:
    return "failed" if REFUSED in prompt else "succeeded"


def _assert_each_job_ended_once(world: World, accepted: Accepted) -> None:
    ledger = world.ledger
    rows = ledger.rows("SELECT id, batch_id, custom_id, state FROM job")
    singles = {row.id: row.state for row in rows if not row.batch_id}
    assert singles == {job_id: expected_state(prompt) for job_id, prompt in accepted.singles.items()}
    in_batches = {(row.batch_id, row.custom_id): row.state for row in rows if row.batch_id}
    assert in_batches == {
        (batch_id, custom_id): expected_state(prompt)
        for batch_id, prompts in accepted.batches.items()
        for custom_id, prompt in prompts.items()
    }
    assert len(rows) == accepted.jobs, "each accepted line is one job"
    assert ledger.count("result") == accepted.jobs, "each job has one result"
    answers = ledger.rows("SELECT r.job_id, r.body FROM result r JOIN job j ON j.id = r.job_id WHERE j.batch_id = ''")
    for row in answers:
        prompt = accepted.singles[row.job_id]
        assert REFUSED in prompt or mark_of(prompt) in row.body, "an answer belongs to its own prompt"


def _assert_batch_is_whole(http: httpx.Client, batch_id: str, prompts: dict[str, str]) -> None:
    batch = http.get(f"/v1/batches/{batch_id}").json()
    assert batch["status"] == "completed", batch
    output, errors = (_lines(http, batch[name]) for name in ("output_file_id", "error_file_id"))
    succeed = {custom_id for custom_id, prompt in prompts.items() if REFUSED not in prompt}
    assert Counter(line["custom_id"] for line in output) == dict.fromkeys(succeed, 1)
    assert Counter(line["custom_id"] for line in errors) == dict.fromkeys(prompts.keys() - succeed, 1)
    for line in output:
        answer = line["response"]["body"]["choices"][0]["message"]["content"]
        assert mark_of(prompts[line["custom_id"]]) in answer, "an answer belongs to its own prompt"
    counts = {"total": len(prompts), "completed": len(succeed), "failed": len(prompts) - len(succeed)}
    assert batch["request_counts"] == counts


def _lines(http: httpx.Client, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    content = http.get(f"/v1/files/{file_id}/content").raise_for_status()
    return [json.loads(line) for line in content.text.splitlines()]


def _assert_calls_are_accounted_for(world: World) -> dict[str, int]:
    """The provider's own books against the ledger's: calls, tokens, money."""
    stats, ledger = world.mock.stats(), world.ledger
    served = Counter(stats["prompts"])
    answered = ledger.rows(
        "SELECT provider, count(*) many, sum(input_tokens) read, sum(output_tokens) written, sum(cost_usd) usd"
        " FROM attempt WHERE failure IS NULL GROUP BY provider"
    )
    for row in answered:
        read_usd, written_usd = PRICES_USD[row.provider]
        assert abs(row.usd - row.read * read_usd - row.written * written_usd) < 1e-6 * row.many
    recorded = sum(row.many for row in answered)
    unrecorded = stats["answered"] - recorded
    assert 0 <= unrecorded <= world.in_flight_at_kills, "only calls that a kill cut off are in no record"
    succeeded = ledger.count("job WHERE state = 'succeeded'")
    twice = sum(served.values()) - succeeded
    assert 0 <= twice <= world.in_flight_at_kills, "only what was in flight at a kill may be paid for twice"
    every_prompt_once = ledger.count("result WHERE status_code = 200")
    assert every_prompt_once == succeeded == len(served)
    spent = ledger.rows("SELECT coalesce(sum(cost_usd), 0) usd FROM attempt")[0].usd
    tallied = ledger.rows("SELECT coalesce(sum(cost_usd), 0) usd FROM tally WHERE kind = 'attempt'")[0].usd
    assert abs(spent - tallied) < 1e-3, "the sums by minute are the sums of the attempts"
    return {"calls": stats["requests"], "twice": twice, "unrecorded": unrecorded, "at kills": world.in_flight_at_kills}
