"""Why a batch is paused: the kind, which decides what happens next, and the sentence for people, which contains no
prompt, no answer and none of the provider's words."""

from enum import StrEnum

from understudy.models.failure import FailureClass


class PauseKind(StrEnum):
    OWNER = "owner"  # a person or a program paused it
    BUDGET = "budget"  # it has spent its budget
    CANARY = "canary"  # its first jobs all failed alike
    FAILING = "failing"  # its latest calls all failed alike
    STOPPED = "stopped"  # its `run` has ended or died; not stored, because the lease of the run says it


BY_FAILURES = frozenset({PauseKind.CANARY, PauseKind.FAILING})
"""Pauses that no person asked for: the jobs failed, all in the same way."""

RUN_STOPPED = "its run was stopped"
"""What holds the batch of a `run` whose process has ended or died."""


def first_jobs_failed(count: int, cls: FailureClass, step: str | None) -> str:
    return f"the first {count:,} jobs all failed: {_what(cls, step)}"


def last_calls_failed(count: int, cls: FailureClass, step: str) -> str:
    return f"the last {count:,} calls all failed: {_what(cls, step)}"


def _what(cls: FailureClass, step: str | None) -> str:
    return f"{cls} at {step}" if step else str(cls)
