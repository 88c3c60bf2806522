"""The states of a job and of a batch, and the named groups of them.

A terminal row never changes. Nothing outside the store's statements moves a row from state to state.
"""

from enum import IntEnum, StrEnum
from typing import Literal, cast


class JobState(StrEnum):
    QUEUED = "queued"  # waits in the ledger, perhaps with a ticket in Redis
    RUNNING = "running"  # claimed by a worker that holds a lease
    SUCCEEDED = "succeeded"  # a provider answered; one Result row
    FAILED = "failed"  # failed for good; one Result row with the error (the dead letter)
    CANCELLED = "cancelled"  # its owner cancelled it before it ended
    EXPIRED = "expired"  # its deadline passed before it ended


OPEN_STATES = frozenset({JobState.QUEUED, JobState.RUNNING})
TERMINAL_STATES = frozenset(JobState) - OPEN_STATES


class BatchState(StrEnum):
    VALIDATING = "validating"  # rows are being written; none of them may start
    IN_PROGRESS = "in_progress"  # accepted; its rows may start unless it is paused or its run stopped
    CANCELLING = "cancelling"  # no row may start; those in flight are being stopped
    EXPIRING = "expiring"  # the deadline passed; rows are being closed
    COMPLETED = "completed"  # every row is terminal
    CANCELLED = "cancelled"  # every row is terminal, some because the owner cancelled
    EXPIRED = "expired"  # every row is terminal, some because the deadline passed
    FAILED = "failed"  # the input was refused; it has no rows to run


OPEN_BATCH_STATES = frozenset(
    {BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING, BatchState.EXPIRING}
)


PriorityWord = Literal["interactive", "normal", "bulk"]
"""A priority as callers write it: the name of its queue."""


class Priority(IntEnum):
    """Lower runs first. Each priority has one queue in Redis, named after it."""

    INTERACTIVE = 0  # somebody holds a connection; one round over the chain
    NORMAL = 1  # single jobs
    BULK = 2  # batches

    @classmethod
    def named(cls, word: "Priority | str") -> "Priority":
        """A priority by the name of its queue. Raises ValueError, one sentence."""
        if isinstance(word, Priority):
            return word
        try:
            return cls[word.upper()]
        except (KeyError, AttributeError):
            raise ValueError(f"priority must be interactive, normal or bulk, not {word!r}") from None

    @property
    def queue(self) -> PriorityWord:
        return cast(PriorityWord, self.name.lower())

    @property
    def patience_s(self) -> float:
        """How long a step may refuse before it is passed over, unless the chain says otherwise."""
        return {Priority.INTERACTIVE: 0.0, Priority.NORMAL: 10.0, Priority.BULK: 30.0}[self]
