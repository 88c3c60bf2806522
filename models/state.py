"""The states of jobs and batches, and named groups of them.

A terminal row never changes. Only the store's statements change the state of a row.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Generic, Literal, TypeVar, cast

State = TypeVar("State", bound=StrEnum)
Actor = Literal["producer", "worker", "leader"]
"""Who runs a statement. The leader is the one worker that plans and cleans up for all."""


@dataclass(frozen=True, slots=True)
class Transition(Generic[State]):
    """A possible change from one state to another."""

    source: State | None  # None: a new row
    target: State
    actor: Actor
    statement: str  # its module below `models.store`, and its name


class JobState(StrEnum):
    QUEUED = "queued"  # waits in the ledger, perhaps with a ticket in Redis
    RUNNING = "running"  # claimed by a worker that holds a lease
    SUCCEEDED = "succeeded"  # a provider answered; one Result row
    FAILED = "failed"  # failed for good; one Result row with the error (the dead letter)
    CANCELLED = "cancelled"  # cancelled by its owner before it ended
    EXPIRED = "expired"  # its deadline passed before it ended


OPEN_STATES = frozenset({JobState.QUEUED, JobState.RUNNING})
TERMINAL_STATES = frozenset(JobState) - OPEN_STATES

JOB_TRANSITIONS = (
    Transition(None, JobState.QUEUED, "producer", "work.intake.INSERT_JOBS"),
    Transition(JobState.QUEUED, JobState.RUNNING, "worker", "work.claims.START"),
    Transition(JobState.QUEUED, JobState.CANCELLED, "producer", "work.jobs.CANCEL_JOB"),
    Transition(JobState.QUEUED, JobState.CANCELLED, "producer", "work.batch_lifecycle.CANCEL_SLICE"),
    Transition(JobState.QUEUED, JobState.CANCELLED, "leader", "work.batch_lifecycle.CANCEL_SLICE"),
    Transition(JobState.QUEUED, JobState.EXPIRED, "producer", "work.batch_lifecycle.EXPIRE_SLICES"),
    Transition(JobState.QUEUED, JobState.EXPIRED, "leader", "work.batch_lifecycle.EXPIRE_SLICES"),
    Transition(JobState.RUNNING, JobState.QUEUED, "worker", "work.claims.settle_jobs"),
    Transition(JobState.RUNNING, JobState.QUEUED, "worker", "work.workers.GIVE_BACK"),
    Transition(JobState.RUNNING, JobState.QUEUED, "worker", "work.workers.GIVE_BACK_SOME"),
    Transition(JobState.RUNNING, JobState.QUEUED, "producer", "work.workers.TAKE_BACK"),
    Transition(JobState.RUNNING, JobState.QUEUED, "leader", "work.workers.TAKE_BACK"),
    Transition(JobState.RUNNING, JobState.SUCCEEDED, "worker", "work.claims.settle_jobs"),
    Transition(JobState.RUNNING, JobState.FAILED, "worker", "work.claims.settle_jobs"),
    Transition(JobState.RUNNING, JobState.FAILED, "producer", "work.workers.TAKE_BACK"),
    Transition(JobState.RUNNING, JobState.FAILED, "leader", "work.workers.TAKE_BACK"),
    Transition(JobState.RUNNING, JobState.CANCELLED, "worker", "work.claims.settle_jobs"),
    Transition(JobState.RUNNING, JobState.CANCELLED, "worker", "work.workers.GIVE_BACK"),
    Transition(JobState.RUNNING, JobState.CANCELLED, "worker", "work.workers.GIVE_BACK_SOME"),
    Transition(JobState.RUNNING, JobState.CANCELLED, "producer", "work.workers.TAKE_BACK"),
    Transition(JobState.RUNNING, JobState.CANCELLED, "leader", "work.workers.TAKE_BACK"),
    Transition(JobState.RUNNING, JobState.EXPIRED, "worker", "work.claims.settle_jobs"),
)


class BatchState(StrEnum):
    VALIDATING = "validating"  # rows are being written; none of them may start
    IN_PROGRESS = "in_progress"  # accepted; its rows may start unless it is paused or its run stopped
    CANCELLING = "cancelling"  # no row may start; those in flight are being stopped
    EXPIRING = "expiring"  # the deadline passed; rows are being closed
    COMPLETED = "completed"  # every row is terminal
    CANCELLED = "cancelled"  # every row is terminal, some because the owner cancelled
    EXPIRED = "expired"  # every row is terminal, some because the deadline passed
    FAILED = "failed"  # the input was rejected; it has no rows to run


OPEN_BATCH_STATES = frozenset(
    {BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING, BatchState.EXPIRING}
)

BATCH_TRANSITIONS = (
    Transition(None, BatchState.VALIDATING, "producer", "work.intake.INSERT_BATCH"),
    Transition(BatchState.VALIDATING, BatchState.IN_PROGRESS, "producer", "work.intake.OPEN_BATCH"),
    Transition(BatchState.VALIDATING, BatchState.IN_PROGRESS, "producer", "work.filling.OPEN_FILLED"),
    Transition(BatchState.VALIDATING, BatchState.FAILED, "producer", "work.filling.FAIL_FILLING"),
    Transition(BatchState.VALIDATING, BatchState.FAILED, "producer", "work.discarding.REFUSE_ROWS"),
    Transition(BatchState.VALIDATING, BatchState.FAILED, "producer", "work.filling.ABANDON"),
    Transition(BatchState.VALIDATING, BatchState.FAILED, "leader", "work.filling.ABANDON"),
    Transition(BatchState.VALIDATING, BatchState.CANCELLED, "producer", "work.filling.CANCEL_FILLING"),
    Transition(BatchState.VALIDATING, BatchState.CANCELLING, "producer", "work.batch_lifecycle.CANCEL_BATCH"),
    Transition(BatchState.IN_PROGRESS, BatchState.CANCELLING, "producer", "work.batch_lifecycle.CANCEL_BATCH"),
    Transition(BatchState.IN_PROGRESS, BatchState.EXPIRING, "producer", "work.batch_lifecycle.EXPIRE_BATCHES"),
    Transition(BatchState.IN_PROGRESS, BatchState.EXPIRING, "leader", "work.batch_lifecycle.EXPIRE_BATCHES"),
    Transition(BatchState.IN_PROGRESS, BatchState.COMPLETED, "producer", "work.batch_lifecycle.CLOSE_BATCHES"),
    Transition(BatchState.IN_PROGRESS, BatchState.COMPLETED, "leader", "work.batch_lifecycle.CLOSE_BATCHES"),
    Transition(BatchState.CANCELLING, BatchState.CANCELLED, "producer", "work.batch_lifecycle.CLOSE_BATCHES"),
    Transition(BatchState.CANCELLING, BatchState.CANCELLED, "leader", "work.batch_lifecycle.CLOSE_BATCHES"),
    Transition(BatchState.EXPIRING, BatchState.EXPIRED, "producer", "work.batch_lifecycle.CLOSE_BATCHES"),
    Transition(BatchState.EXPIRING, BatchState.EXPIRED, "leader", "work.batch_lifecycle.CLOSE_BATCHES"),
)


PriorityWord = Literal["interactive", "normal", "bulk"]
"""A priority as callers write it: the name of its queue."""


class Priority(IntEnum):
    """Lower runs first. Each priority has one queue in Redis, named after it."""

    INTERACTIVE = 0  # a client is holding a connection; one round over the chain
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
        """How long a step may reject calls before it is skipped, unless the chain sets it."""
        return {Priority.INTERACTIVE: 0.0, Priority.NORMAL: 10.0, Priority.BULK: 30.0}[self]
