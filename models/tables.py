"""The tables of the ledger. Columns that hold JSON are text; times are unix seconds (float).

Only `models.store` reads and writes them. Docstrings and comments say what a column means, never how it is used.
"""

from sqlalchemy import BigInteger, Column, Index, Text, text
from sqlmodel import Field, SQLModel

from models.state import BatchState, JobState


class Chain(SQLModel, table=True):
    """A chain as it was accepted, once for all jobs that use it."""

    id: str = Field(primary_key=True)  # hash of the document
    document: str = Field(sa_column=Column(Text, nullable=False))
    created_at: float


class Batch(SQLModel, table=True):
    """Many jobs submitted together. Its state decides whether its rows may start."""

    id: str = Field(primary_key=True)
    tenant: str = Field(default="default", index=True)
    state: str = Field(default=BatchState.VALIDATING, index=True)
    priority: int
    endpoint: str
    source: str = ""  # name of the input, for people
    identity: str | None = Field(default=None, unique=True)  # hash of a run's input and options
    retry_of: str | None = Field(default=None, index=True)
    note: str = Field(default="{}", sa_column=Column(Text, nullable=False))  # the caller's metadata
    total: int = 0  # rows, known when validating ends
    paused: str | None = None  # why it is held; None when it is not
    created_at: float
    expires_at: float
    started_at: float | None = None  # when it became in_progress
    cancelling_at: float | None = None
    ended_at: float | None = None
    error: str | None = Field(default=None, sa_column=Column(Text))


class Job(SQLModel, table=True):
    """One completion owed. `(worker_id, claim_no)` is the fence of everything that is written about it."""

    __table_args__ = (
        Index(
            "ix_job_ready",
            "batch_id",
            "tenant",
            "chain_id",
            "priority",
            "not_before",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_job_due",
            "not_before",
            sqlite_where=text("state = 'queued' AND not_before > 0"),
            postgresql_where=text("state = 'queued' AND not_before > 0"),
        ),
        Index(
            "ix_job_waiting",
            "batch_id",
            sqlite_where=text("state = 'queued' AND not_before > 0"),
            postgresql_where=text("state = 'queued' AND not_before > 0"),
        ),
        Index(
            "ix_job_deadline",
            "expires_at",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_job_running",
            "worker_id",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index(
            "ix_job_running_batch",
            "batch_id",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_job_batch", "batch_id", "id"),
    )

    id: str = Field(primary_key=True)
    batch_id: str  # "" for a job that was submitted alone
    tenant: str = "default"
    custom_id: str
    line: int = 0
    chain_id: str
    priority: int
    state: str = Field(default=JobState.QUEUED)
    not_before: float = 0.0  # 0: never put back
    expires_at: float
    tokens: int = 0  # estimated input tokens
    worker_id: str | None = None  # who holds the claim while running
    claim_no: int = 0  # grows with every claim
    cancel_requested: bool = False  # its owner cancelled while it was running
    crashes: int = 0  # workers that died with it aboard and may have died of it
    attempts: int = 0  # provider calls recorded so far
    progress: str | None = Field(default=None, sa_column=Column(Text))  # where it stands in its chain
    wait_reason: str | None = None  # why it was put back, for people
    created_at: float
    started_at: float | None = None  # latest claim
    ended_at: float | None = None


class JobInput(SQLModel, table=True):
    """The prompt, apart from the row that is updated, and prunable."""

    __tablename__ = "job_input"

    job_id: str = Field(primary_key=True)
    body: str = Field(sa_column=Column(Text, nullable=False))
    extra: str | None = Field(default=None, sa_column=Column(Text))  # what the output repeats (CSV columns)


class Result(SQLModel, table=True):
    """The one terminal record of a job that succeeded or failed."""

    __table_args__ = (Index("ix_result_batch", "batch_id", "job_id"),)

    job_id: str = Field(primary_key=True)
    batch_id: str
    status_code: int | None = None  # of the provider's HTTP answer
    body: str | None = Field(default=None, sa_column=Column(Text))  # completion, or the provider's error body
    error: str | None = Field(default=None, sa_column=Column(Text))  # JSON, when there was no HTTP answer
    provider: str | None = None
    model: str | None = None
    key: str | None = None  # the credential's name
    fallback_index: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    latency_ms: int = 0
    created_at: float


class Attempt(SQLModel, table=True):
    """One provider call. Append-only and not fenced: a late answer is still paid for."""

    __table_args__ = (Index("ix_attempt_job", "job_id"), Index("ix_attempt_batch", "batch_id", "id"))

    id: str = Field(primary_key=True)
    job_id: str
    batch_id: str
    no: int  # within the job, from 1
    claim_no: int
    step: int
    provider: str
    model: str
    key: str
    failure: str | None = Field(default=None, index=True)  # failure class; None: it answered
    status: int | None = None
    latency_ms: int
    started_at: float
    message: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    possibly_billed: bool = False


class Tally(SQLModel, table=True):
    """Counts, one row per writer and minute so that nobody waits for anybody; summed on read.

    `kind` is "attempt" (outcome: "answered" or a failure class) or "job" (outcome: a terminal job state).
    """

    batch_id: str = Field(primary_key=True)
    worker_id: str = Field(primary_key=True)
    minute: int = Field(primary_key=True)  # unix seconds // 60
    kind: str = Field(primary_key=True)
    provider: str = Field(primary_key=True, default="")
    model: str = Field(primary_key=True, default="")
    outcome: str = Field(primary_key=True)
    count: int = 0
    fallbacks: int = 0
    input_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    output_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    cost_usd: float = 0.0


class Lane(SQLModel, table=True):
    """Which chains a batch (or a tenant's single jobs, batch "") has queued jobs for: what the planner visits."""

    batch_id: str = Field(primary_key=True)
    tenant: str = Field(primary_key=True)
    chain_id: str = Field(primary_key=True)
    priority: int = Field(primary_key=True)


class Worker(SQLModel, table=True):
    """A worker process and its lease."""

    id: str = Field(primary_key=True)
    host: str
    pid: int
    concurrency: int
    started_at: float
    lease_until: float
    draining: bool = False


class Credential(SQLModel, table=True):
    """A credential that was set aside, and why. `model` "" means for all models."""

    provider: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    model: str = Field(primary_key=True, default="")
    failure: str  # failure class
    reason: str
    fingerprint: str = ""  # short hash of the secret: a rotated key is tried again
    since: float
    probe_at: float | None = None  # when one real job may try it again
