"""The progress of a run in a log that a person reads hours later."""

import io
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console

from understudy.models.jobs.views import BatchView, DeploymentTally
from understudy.models.state import BatchState, JobState, Priority
from understudy.producer.runs.retry_chain import summary
from understudy.producer.status.progress import Display


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def view(done: int, total: int = 100, **fields: Any) -> BatchView:
    counts = dict.fromkeys(JobState, 0) | {JobState.SUCCEEDED: done, JobState.QUEUED: total - done}
    known: dict[str, Any] = {
        **{"id": "batch_1", "state": BatchState.IN_PROGRESS, "tenant": "default", "priority": Priority.BULK},
        **{"source": "a", "total": total, "created_at": 0.0, "expires_at": 1e10, "ended_at": None, "paused": None},
        **{"retry_of": None, "counts": counts, "cost_usd": 0.5, "fallbacks": 0, "by_deployment": []},
        **{"recent_per_s": 2.0, "waits": []},
    }
    return BatchView(**{**known, **fields})


class Log:
    def __init__(self, width: int = 80) -> None:
        self.clock = Time()
        self._stream = io.StringIO()
        console = Console(file=self._stream, width=width, force_terminal=False)
        self.display = Display(console, 60.0, self.clock, lambda: datetime(2026, 11, 30, 12, 3, 10))

    def after(self, seconds: float, *views: BatchView) -> list[str]:
        """The lines that one more look adds."""
        self.clock.now += seconds
        before = len(self._stream.getvalue())
        self.display.update(summary(list(views)), views)
        return self._stream.getvalue()[before:].splitlines()


def test_a_line_has_the_time_the_rate_what_is_left_and_the_cost() -> None:
    (line,) = Log().after(0, view(40))
    assert line == "12:03:10  40/100  2.0/s  ETA 30s  $0.5000"


def test_each_tenth_has_a_line_and_so_has_a_minute_without_one() -> None:
    log = Log()
    assert len(log.after(0, view(40))) == 1
    assert log.after(30, view(41)) == [] and log.after(29.9, view(42)) == []
    assert len(log.after(0.1, view(43))) == 1
    assert len(log.after(1, view(50))) == 1
    assert log.after(59.9, view(50)) == []


def test_no_time_left_is_shown_when_nothing_moves() -> None:
    (line,) = Log().after(0, view(40, recent_per_s=0.0))
    assert "ETA" not in line and "0.0/s" in line


def test_what_is_done_has_no_rate_any_more() -> None:
    (line,) = Log().after(0, view(100, recent_per_s=0.0))
    assert "100/100" in line and "/s" not in line


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_line_of_a_log_is_one_line_however_long_it_is(width: int) -> None:
    log = Log(width)
    log.display.say("word " * 60)
    (line,) = log.after(0, view(40, cost_usd=123_456.7, total=1_000_000))
    assert line.endswith("$123,456.7000")


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_on_a_terminal_the_figures_are_whole_and_the_rest_gives_way(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    display = Display(console)
    mix = [DeploymentTally(f"provider-{number}", "m", answered=50) for number in range(6)]
    seen = view(40, 100_000, by_deployment=mix, recent_per_s=12.3)
    with display.shown():
        display.update(summary([seen]), [seen])
    (last, *_) = [line for line in reversed(stream.getvalue().splitlines()) if "running" in line]
    assert "40/100,000" in last and "12.3/s" in last and "ETA 2h15m" in last
    assert not any("provider-5" in line for line in stream.getvalue().splitlines() if "running" not in line)
