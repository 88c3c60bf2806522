"""What a batch says that does not go on: its jobs fail, or its run was stopped. No prompt, no answer and none of the
provider's words."""

import re

from understudy.models.failure import FailureClass

_BY_FAILURES = re.compile(r"the (first|last) [\d,]+ (jobs|calls) all failed: ")

RUN_STOPPED = "its run was stopped"
"""What holds the batch of a `run` whose process has ended or died."""


def first_jobs_failed(count: int, cls: FailureClass, step: str | None) -> str:
    return f"the first {count:,} jobs all failed: {_what(cls, step)}"


def last_calls_failed(count: int, cls: FailureClass, step: str) -> str:
    return f"the last {count:,} calls all failed: {_what(cls, step)}"


def is_by_failures(reason: str) -> bool:
    """Whether nobody asked for the pause: its jobs failed, one like the other."""
    return _BY_FAILURES.match(reason) is not None


def _what(cls: FailureClass, step: str | None) -> str:
    return f"{cls} at {step}" if step else str(cls)
