"""The sentence that says why a job or a batch waits, and until when."""

from dataclasses import replace

import pytest
from job_view_help import job_view

from understudy.models.jobs.wait_reasons import Waiting, as_json, from_json, put_back_at, put_back_for
from understudy.models.objects.waiting import waiting_object
from understudy.models.state import JobState
from understudy.producer.number_format import clock_time
from understudy.producer.status.waiting import NO_PLANNER, NO_WORKER, WaitNews, explained

NOW = 1_800_000_000.0
COOLING = "cooling down after a refusal"
PLACE = ("openai", "vendor/gpt-4o:free", "openai:main")


def test_a_cooldown_is_told_with_its_place_and_its_end() -> None:
    waiting = Waiting(f"{COOLING} at openai/gpt-4o-mini", "cooldown", "openai", "gpt-4o-mini", "openai:main", NOW + 25)
    at = clock_time(NOW + 25, NOW)
    expected = f"waits for openai/gpt-4o-mini (account openai:main): {COOLING} until {at} (in 25s)"
    assert explained(waiting, NOW) == expected


def test_our_own_pacing_is_told_with_the_next_start() -> None:
    waiting = Waiting("requests per minute are used up at a/m", "requests", "a", "m", "a:main", NOW + 0.4)
    assert str(explained(waiting, NOW)).startswith("waits for a/m (account a:main): requests per minute are used up")
    assert str(explained(waiting, NOW)).endswith(f"; next start at {clock_time(NOW + 0.4, NOW)} (in 0.4s)")


def test_what_has_no_end_or_one_that_has_passed_names_none() -> None:
    full = Waiting("the maximum number of calls is in flight at a/m", "in_flight", "a", "m", "a:main")
    assert explained(full, NOW) == "waits for a/m (account a:main): the maximum number of calls is in flight"
    over = Waiting(COOLING, "cooldown", "a", "m", "a:main", NOW - 1)
    assert explained(over, NOW) == f"waits for a/m (account a:main): {COOLING}"


def test_what_concerns_no_deployment_is_the_sentence_alone() -> None:
    assert explained(Waiting("other jobs are staged first", "turn"), NOW) == "waits: other jobs are staged first"
    assert explained(NO_WORKER, NOW) == "no worker is running; start one with `understudy worker`"
    assert explained(NO_PLANNER, NOW) == NO_PLANNER.reason
    assert explained(None, NOW) is None


def test_another_day_is_named() -> None:
    waiting = Waiting(COOLING, "cooldown", "a", "m", "a:main", NOW + 90_000)
    assert clock_time(NOW + 90_000, NOW)[:4] == "2027" and "(in 25h00m)" in str(explained(waiting, NOW))


@pytest.mark.parametrize(
    "waiting",
    [
        put_back_at(COOLING, *PLACE),
        put_back_at("rate_limit", "lead", "large", None),
        put_back_for("retry at lead/large after a failure"),
        put_back_for("quota at openai (key main): you asked at noon/today"),
    ],
)
def test_what_a_worker_wrote_down_is_read_again(waiting: Waiting) -> None:
    assert from_json(as_json(waiting), NOW) == replace(waiting, until=NOW)
    assert from_json(as_json(replace(waiting, until=NOW + 1))) == waiting, "the row has another column for that"
    assert from_json(None, NOW) is None


def test_the_sentence_names_the_account() -> None:
    assert put_back_at(COOLING, "lead", "large", "lead:main").sentence == f"{COOLING} at lead/large (account lead:main)"
    assert put_back_at(COOLING, "lead", "large", None).sentence == f"{COOLING} at lead/large"


def test_only_a_job_that_was_put_back_waits_for_something() -> None:
    waiting = put_back_at(COOLING, *PLACE)
    job = job_view(put_back_for=waiting, not_before=NOW + 5, now=NOW)
    assert job.waiting == replace(waiting, until=NOW + 5)
    assert replace(job, now=NOW + 6).waiting == waiting
    assert replace(job, put_back_for=None).waiting is None
    assert replace(job, state=JobState.RUNNING).waiting is None


def test_who_watches_is_told_once_and_again_when_it_lasts_longer_than_announced() -> None:
    news, cooling = WaitNews(), Waiting(COOLING, "cooldown", *PLACE, NOW + 20)
    assert not news.is_news(None, NOW)
    assert news.is_news(cooling, NOW)
    assert not news.is_news(cooling, NOW + 1) and not news.is_news(None, NOW + 2)
    assert not news.is_news(replace(cooling, until=NOW + 30), NOW + 3)
    assert news.is_news(NO_WORKER, NOW + 4) and not news.is_news(NO_WORKER, NOW + 1e6)
    assert news.is_news(cooling, NOW + 5) and news.is_news(replace(cooling, until=NOW + 50), NOW + 21)
    pacing = Waiting("requests per minute are used up", "requests", *PLACE, NOW + 23)
    assert news.is_news(pacing, NOW + 22) and not news.is_news(replace(pacing, until=NOW + 99), NOW + 98)


def test_as_json_all_of_it_is_named() -> None:
    assert waiting_object(None) is None
    assert waiting_object(Waiting(COOLING, "cooldown", *PLACE, NOW)) == {
        "reason": COOLING,
        "hold": "cooldown",
        "provider": PLACE[0],
        "model": PLACE[1],
        "account": PLACE[2],
        "until": NOW,
        "who_can_help": None,
    }


@pytest.mark.parametrize(
    ("hold", "who"),
    [
        *[("credential", "operator"), ("rules", "operator"), ("budget", "operator"), ("paused", "owner")],
        *[("cooldown", None), ("turn", None), ("put_back", None), ("day", None)],
    ],
)
def test_who_can_end_a_wait_that_time_does_not_end_is_named(hold: str, who: str | None) -> None:
    shown = waiting_object(Waiting("so it is", hold))
    assert shown is not None and shown["who_can_help"] == who
