"""Why a batch is paused: the kind, which determines the consequences, and a readable sentence without any prompt,
answer or provider's message."""

from enum import StrEnum

from understudy.models.failure import FailureClass


class PauseKind(StrEnum):
    OWNER = "owner"  # a person or a program paused it
    BUDGET = "budget"  # it has spent its budget
    CANARY = "canary"  # its first jobs all failed alike
    FAILING = "failing"  # its latest calls all failed alike
    STOPPED = "stopped"  # its `run` has ended or died; not stored, because the run's lease shows it


BY_FAILURES = frozenset({PauseKind.CANARY, PauseKind.FAILING})
"""Automatic pauses: all jobs failed in the same way."""

RUN_STOPPED = "its run was stopped"
"""The reason why the batch of a `run` is paused whose process has ended or died."""


def first_jobs_failed(count: int, cls: FailureClass, step: str | None) -> str:
    return f"the first {count:,} jobs all failed: {_what(cls, step)}"


def last_calls_failed(count: int, cls: FailureClass, step: str) -> str:
    return f"the last {count:,} calls all failed: {_what(cls, step)}"


def _what(cls: FailureClass, step: str | None) -> str:
    return f"{cls} at {step}" if step else str(cls)
