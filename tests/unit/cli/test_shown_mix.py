"""Who answered which share of a batch, on wide and on narrow pages and over HTTP."""

import re
from typing import Any

import pytest
from rich.console import Console

from understudy.models.jobs.views import BatchView, DeploymentTally
from understudy.models.objects.batch import batch_object
from understudy.models.state import BatchState, JobState, Priority
from understudy.producer.number_format import spent, spent_briefly
from understudy.producer.status import printing as show
from understudy.producer.status import providers_table as show_providers
from understudy.producer.status.split_table import percent, split_table

LONG_MODEL = "meta-llama/llama-3.3-70b-instruct"


def batch(*deployments: DeploymentTally, **fields: Any) -> BatchView:
    counts = dict.fromkeys(JobState, 0) | {JobState.SUCCEEDED: sum(each.answered for each in deployments)}
    return BatchView(
        **{
            **{"id": "batch_01m8axfjc90003v8es3n7k3aq9", "state": BatchState.IN_PROGRESS},
            **{
                "tenant": "default",
                "priority": Priority.BULK,
                "source": "in.jsonl",
                "total": 1_000_000,
                "created_at": 0.0,
            },
            **{"expires_at": 1e10, "ended_at": None, "paused": None, "retry_of": None, "counts": counts},
            **{"cost_usd": 0.0, "fallbacks": sum(each.fallbacks for each in deployments)},
            **{"by_deployment": list(deployments), "recent_per_s": 0.0, "waits": []},
            **fields,
        }
    )


MIXED = batch(
    DeploymentTally("openai", "gpt-4o-mini", answered=750),
    DeploymentTally("openrouter", LONG_MODEL, answered=250, fallbacks=240),
)


def printed(what: Any, width: int) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 0, "–"), (0, 9, "0%"), (1, 1_000, "<1%"), (1, 4, "25%"), (999, 1_000, ">99%"), (9, 9, "100%")],
)
def test_a_share_never_rounds_something_to_nothing_or_to_all(part: int, whole: int, words: str) -> None:
    assert percent(part, whole) == words


def test_a_wide_page_has_all_columns() -> None:
    lines = printed(split_table([MIXED], {}), 120).splitlines()
    first, second = (line.split() for line in lines if "$0.0000" in line)
    assert (first[0], first[2:5]) == ("openai", ["750", "75%", "0"])
    assert second == ["openrouter", LONG_MODEL, "250", "25%", "240", "–", "–", "$0.0000"]


@pytest.mark.parametrize(("width", "left_out"), [(100, set()), (94, {"p95"}), (80, {"p95", "p50", "fallbacks"})])
def test_on_a_narrow_page_columns_give_way_before_a_name_is_broken(width: int, left_out: set[str]) -> None:
    lines = printed(split_table([MIXED], {}), width).splitlines()
    assert all(len(line) <= width for line in lines)
    (heading,) = (line.split() for line in lines if "provider" in line)
    assert {"p95", "p50", "fallbacks", "share"} - set(heading) == left_out
    (row,) = (line.split() for line in lines if "openrouter" in line)
    assert (row[:3], row[-1]) == (["openrouter", LONG_MODEL, "250"], "$0.0000")


def test_on_a_very_narrow_page_names_are_broken_and_figures_are_whole() -> None:
    lines = printed(split_table([MIXED], {}), 40).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert [line.split()[-2:] for line in lines if "$0.0000" in line] == [["750", "$0.0000"], ["250", "$0.0000"]]


CALL = {
    **{"job_id": "job_01m8nhjmgy002wg1c9d7v4arh7", "provider": "openai", "model": "gpt-4o-mini", "key": "main"},
    **{"started_at": 1_796_019_426.9, "failure": "bad_request", "status": 400, "latency_ms": 1234, "cost_usd": None},
    "message": "Unsupported parameter:\n'temperature' does not support 0",
}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_id_of_a_call_can_be_copied_on_every_page(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "page", lambda: Console(width=width, highlight=False))
    show.print_attempts([CALL, {**CALL, "failure": None, "status": None, "message": None, "cost_usd": 0.00123}])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count(CALL["job_id"]) for line in lines) == 2
    said = " ".join(line.strip() for line in lines)
    assert "cost unknown" in said and "$0.001230" in said and "answered" in said and "1.23 s" in said
    if width < show.VERY_WIDE_CHARS:
        assert "Unsupported parameter: 'temperature' does not support 0" in said and len(lines) <= 8


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_of_batches_has_room_for_a_million(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "page", lambda: Console(width=width))
    paused = batch(paused="a budget was spent and nobody has granted more of it yet")
    said = printed(show.batches_table([MIXED, paused]), width)
    assert "batch_01m8axfjc90003v8es3n7k3aq9" in said and "1,000,000" in said and "…" not in said
    assert ("$0.0000" in said) is (width == 120)


def test_shares_are_of_answers() -> None:
    shown = batch_object(MIXED, None)["understudy"]
    assert [each["share"] for each in shown["by_provider"]] == [0.75, 0.25]
    assert (shown["fallbacks"], shown["fallback_share"]) == (240, 0.24)
    nothing = batch_object(batch(DeploymentTally("openai", "gpt-4o-mini")), None)["understudy"]
    assert (nothing["by_provider"][0]["share"], nothing["fallback_share"]) == (None, None)


def test_providers_fit_a_narrow_page(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = {"limit": 586.0, "source": "learned", "until": None, "configured": 600}
    row = {
        **{"provider": "openrouter", "model": LONG_MODEL, "key": "main", "account": "openrouter:main"},
        **{"requests_per_minute": limit, "tokens_per_minute": {**limit, "limit": None, "configured": None}},
        **{"requests_per_day": None, "tokens_per_day": {"limit": 90_000, "used": 41_500, "until": 1.0}},
        **{"in_flight": {"limit": 200, "source": "configured", "configured": 200, "now": 12}, "state": "ready"},
        **{"last_minute": {"answered": 580, "refused": 3, "failed": 0}, "disabled": [], "cooldowns": []},
        **{"next_start": None},
    }
    said = {}
    for width in (80, 120):
        console = Console(width=width, highlight=False)
        monkeypatch.setattr(show_providers, "page", lambda console=console: console)
        with console.capture() as captured:
            show_providers.print_providers([row])
        said[width] = captured.get()
    assert f"openrouter/{LONG_MODEL}, key main: ready\n" in said[80]
    assert "requests/min 586 of 600, learned\n" in said[80] and "last minute 580, 3 refused\n" in said[80]
    assert "today 41,500 of 90,000 tokens\n" in said[80]
    assert "586 of 600, learned" in said[120] and "580, 3 refused" in said[120]


def test_tenants_are_named_in_a_list_where_there_are_several() -> None:
    assert "tenant" not in printed(show.batches_table([MIXED]), 200)
    both = printed(show.batches_table([MIXED, batch(tenant="acme")]), 200)
    assert re.search(r"tenant.*\n.*\n.*default.*\n.*acme", both), both


@pytest.mark.parametrize(
    ("usd", "unpriced", "long", "short"),
    [
        (0.0, 0, "$0.0000", "$0.0000"),
        (0.00003, 0, "under $0.0001", "under $0.0001"),
        (0.0123, 0, "$0.0123", "$0.0123"),
        (0.0123, 40, "$0.0123 + 40 calls of unknown cost", "$0.0123 + ?"),
        (0.0, 1, "1 call of unknown cost", "unknown"),
    ],
)
def test_a_cost_that_is_not_known_is_not_shown_as_nothing(usd: float, unpriced: int, long: str, short: str) -> None:
    assert (spent(usd, unpriced), spent_briefly(usd, unpriced)) == (long, short)


def test_the_table_and_both_documents_tell_unknown_costs_from_none() -> None:
    free, dear = DeploymentTally("local", "m", answered=3, unpriced_calls=3), DeploymentTally("a", "m", answered=1)
    dear.cost_usd = 0.25
    rows = printed(split_table([batch(free, dear)], {}), 80).splitlines()
    assert [row.split()[-1] for row in rows if "local" in row or row.strip().startswith("a ")] == ["unknown", "$0.2500"]
    seen = batch_object(batch(free), None)["understudy"]
    assert (seen["cost_usd"], seen["unpriced_calls"]) == (None, 3)
    seen = batch_object(batch(free, dear, cost_usd=0.25), None)["understudy"]
    assert (seen["cost_usd"], seen["unpriced_calls"]) == (0.25, 3)
    assert [each["cost_usd"] for each in seen["by_provider"]] == [None, 0.25]
