"""The tables of the ledger. Columns that hold JSON are text; times are unix seconds (float).

Only `models.store` reads and writes them. Docstrings and comments say what a column means, never how it is used.
"""

from sqlalchemy import BigInteger, Column, Index, Text, text
from sqlmodel import Field, SQLModel

from understudy.models.state import BatchState, JobState


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
    identity: str | None = Field(default=None, unique=True)  # of a run's batch: the run's id first
    retry_of: str | None = Field(default=None, index=True)
    note: str = Field(default="{}", sa_column=Column(Text, nullable=False))  # the caller's metadata
    total: int = 0  # rows, known when validating ends
    paused: str | None = None  # why it is held; None when it is not
    pause_kind: str | None = None  # `PauseKind` of the same, for what follows from it
    paused_at: float | None = None  # since when, of the latest time
    resumed_at: float | None = None  # when it was let go on, the latest time
    runs_until: float | None = None  # of a `run`: until when its process lives; its jobs start no later
    blocked: str | None = Field(default=None, sa_column=Column(Text))  # what a person must fix before it goes on
    created_at: float
    expires_at: float
    started_at: float | None = None  # when it became in_progress
    cancelling_at: float | None = None
    ended_at: float | None = None
    error: str | None = Field(default=None, sa_column=Column(Text))  # JSON list of line errors of a failed one
    input_file_id: str | None = Field(default=None, index=True)
    completion_window: str = "24h"  # as the caller wrote it
    options: str | None = Field(default=None, sa_column=Column(Text))  # JSON: what shapes its lines, while validating
    callback_url: str | None = None  # told when it ends
    output_expires_s: float | None = None  # after its end
    request_hash: str | None = Field(default=None, index=True)  # of the whole create request, to know a repeated one
    filled_by: str | None = None  # the process that writes its rows
    fill_until: float = 0.0  # until when that process may be taken to be alive
    fill_tries: int = 0  # times that it was begun since rows of it were written
    weight: float = 1.0  # its share when batches of one tenant and priority take turns
    budget_usd: float | None = None  # it is paused before it would cost more
    estimated_usd: float | None = None  # what it was expected to cost when it was accepted
    unpriced_lines: int = 0  # those that the estimate leaves out, because no price of their model was known
    canary_passed: bool = False  # one of its jobs succeeded, or its owner resumed it: no canary looks at it any more
    waiting: str | None = Field(default=None, sa_column=Column(Text))  # JSON: what the planner says it waits for
    waiting_at: float = 0.0  # when the planner said so
    delivered_at: float | None = None  # its owner has its results: their content may go
    stored_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    """Of its rows and prompts, less all that is gone, answers included; `tally` has the bytes of the answers."""


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
        Index(
            "ix_job_delivered",
            "delivered_at",
            sqlite_where=text("delivered_at IS NOT NULL"),
            postgresql_where=text("delivered_at IS NOT NULL"),
        ),
        Index("ix_job_batch", "batch_id", "id"),
        Index("ix_job_chain", "chain_id"),
        Index("ix_job_tenant", "tenant", "id"),
        Index(
            "ix_job_stored",
            "tenant",
            "bytes",
            "answer_bytes",
            sqlite_where=text("batch_id = ''"),
            postgresql_where=text("batch_id = ''"),
        ),
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
    max_output_tokens: int = 0  # the most that its answer may have; 0: the request does not say
    bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of its row and its prompt
    worker_id: str | None = None  # who holds the claim while running
    claim_no: int = 0  # grows with every claim
    cancel_requested: bool = False  # its owner cancelled while it was running
    crashes: int = 0  # workers that died with it aboard and may have died of it
    attempts: int = 0  # provider calls recorded so far
    progress: str | None = Field(default=None, sa_column=Column(Text))  # where it stands in its chain
    wait_reason: str | None = None  # why it was put back, for people
    callback_url: str | None = None  # told when it ends; for jobs that were submitted alone
    note: str | None = Field(default=None, sa_column=Column(Text))  # the caller's metadata, JSON
    delivered_at: float | None = None  # of a job that was submitted alone: its owner has its result
    answer_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))  # of its result; None: not counted
    created_at: float
    started_at: float | None = None  # latest claim
    ended_at: float | None = None


class Run(SQLModel, table=True):
    """An output file of `understudy run`, and which version of its input it is to hold."""

    id: str = Field(primary_key=True)  # hash of the file's place
    version: int  # 0: it has no lines
    taken_until: float = 0.0  # until when the process that is at work on it may be taken to be alive


class RunLine(SQLModel, table=True):
    """A line of a run's input in one version of it, and the job that answers it.

    A line of an older version is kept while its job has an answer that could serve again.
    """

    __tablename__ = "run_line"
    __table_args__ = (
        Index("ix_run_line_request", "run_id", "request", "name"),
        Index("ix_run_line_name", "run_id", "version", "name"),
        Index("ix_run_line_job", "job_id"),
    )

    run_id: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    position: int = Field(primary_key=True)  # among the lines, from 1
    line: int  # of the file, from 1
    name: str  # its custom_id
    named: bool  # the caller gave it that name
    request: str  # hash of what the model is asked
    chain_id: str  # along which it would be asked today
    extra: str | None = Field(default=None, sa_column=Column(Text))  # as in `job_input`; None: as there
    job_id: str | None = None  # None while it is compared and has none
    again_id: str | None = None  # asked by a retry; counts once it is answered, or if `job_id` is not
    ask: str | None = None  # while it is compared: why it is to be asked


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
    failure: str | None = None  # the class of a job that failed
    step: str | None = None  # whose error that is, "provider/model"; None: no step's
    provider: str | None = None
    model: str | None = None
    key: str | None = None  # the credential's name
    fallback_index: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: bool = False  # no price of its answer is known, so that its cost is not
    latency_ms: int = 0
    created_at: float


class Attempt(SQLModel, table=True):
    """One provider call. Append-only and not fenced: a late answer is still paid for."""

    __table_args__ = (
        Index("ix_attempt_job", "job_id"),
        Index("ix_attempt_batch", "batch_id", "id"),
        Index("ix_attempt_tenant", "tenant", "id"),
    )

    id: str = Field(primary_key=True)
    job_id: str
    batch_id: str
    tenant: str = "default"
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
    unpriced: bool = False  # it used tokens whose price is not known
    possibly_billed: bool = False


class Tally(SQLModel, table=True):
    """Counts, one row per writer and minute so that nobody waits for anybody; summed on read.

    `kind` is "attempt" (outcome: "answered" or a failure class) or "job" (outcome: a terminal job state).
    """

    __table_args__ = (Index("ix_tally_minute", "minute"),)

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
    cached_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of the input
    reasoning_tokens: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of the output
    cost_usd: float = 0.0
    unpriced: int = 0  # calls whose price is not known, and which the cost leaves out
    bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of the answers


class Lane(SQLModel, table=True):
    """Written by earlier versions only. The lanes of jobs are read off the jobs; migrations take nothing away."""

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
    job_id: str | None = None  # to which the provider said `reason`; its words go with the job's content


class File(SQLModel, table=True):
    """An uploaded input, or the output or error file of a batch, which has no bytes of its own: it is read from the
    results."""

    __table_args__ = (Index("ix_file_tenant", "tenant", "created_at", "id"),)

    id: str = Field(primary_key=True)
    tenant: str = "default"
    purpose: str  # "batch", "batch_output"
    filename: str
    bytes: int | None = Field(default=None, sa_column=Column(BigInteger))  # None: not measured yet
    lines: int = 0  # of an input
    batch_id: str | None = Field(default=None, index=True)  # whose output it is
    part: str | None = None  # "output" or "error"; None for an upload
    created_at: float
    expires_at: float | None = Field(default=None, index=True)


class Idempotency(SQLModel, table=True):
    """A request that its caller named, and what it made: the same request again makes nothing new."""

    __table_args__ = (
        Index(
            "ix_idempotency_answered",
            "object_id",
            sqlite_where=text("answer IS NOT NULL"),
            postgresql_where=text("answer IS NOT NULL"),
        ),
        Index(
            "ix_idempotency_stored",
            "tenant",
            "answer_bytes",
            sqlite_where=text("answer IS NOT NULL"),
            postgresql_where=text("answer IS NOT NULL"),
        ),
    )

    tenant: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_hash: str
    object_id: str  # the job or batch
    answer: str | None = Field(default=None, sa_column=Column(Text))  # JSON: of a request that made several jobs
    answer_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    created_at: float = Field(index=True)


class Tenant(SQLModel, table=True):
    """Whose jobs they are, and how much of them. A limit that is None does not hold."""

    name: str = Field(primary_key=True)
    jobs_per_minute: int | None = None
    queued_jobs: int | None = None
    usd_per_month: float | None = None  # calendar month, UTC
    weight: float = 1.0  # its share when tenants of one priority take turns
    require: str | None = Field(default=None, sa_column=Column(Text))  # JSON: tags that its providers must have
    forbid: str | None = Field(default=None, sa_column=Column(Text))  # JSON: tags that they must not have
    store_content: str | None = None  # "always" or "until_delivered"; None: as the installation does
    allow: str | None = Field(default=None, sa_column=Column(Text))  # JSON list: the chains and models it may use
    stored_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))  # None: as the installation allows
    open_batches: int | None = Field(default=None, sa_column=Column(BigInteger))  # the same
    created_at: float


class TenantTally(SQLModel, table=True):
    """What a tenant used, one row per writer and period so that nobody waits for anybody; summed on read.

    `kind` is "accepted" (jobs; the period is a minute) or "spent" (US dollars; the period is a day).
    """

    __tablename__ = "tenant_tally"
    __table_args__ = (Index("ix_tenant_tally_period", "tenant", "kind", "period"),)

    tenant: str = Field(primary_key=True)
    writer: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    period: int = Field(primary_key=True)  # unix seconds // 60, or // 86400
    count: int = 0
    cost_usd: float = 0.0


class ProviderTally(SQLModel, table=True):
    """What calls of a provider cost, one row per writer and day so that nobody waits for anybody; summed on read."""

    __tablename__ = "provider_tally"

    provider: str = Field(primary_key=True)
    writer: str = Field(primary_key=True)
    day: int = Field(primary_key=True)  # unix seconds // 86400
    cost_usd: float = 0.0


class BudgetGrant(SQLModel, table=True):
    """Money beyond a budget, granted by `resume` when the budget of a tenant or provider was spent."""

    __tablename__ = "budget_grant"

    subject: str = Field(primary_key=True)  # "tenant:NAME" or "provider:NAME"
    period: str = Field(primary_key=True)  # such as "2026-11" or "2026-11-26"
    usd: float = 0.0


class ApiKey(SQLModel, table=True):
    """A key of the HTTP API. Only its hash is kept."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)  # the part of the key that may be shown
    tenant: str = Field(default="default", index=True)
    name: str
    hash: str  # SHA-256 of the secret part, hexadecimal
    scopes: str  # "read", "submit", "admin", separated by blanks
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


class WebhookSecret(SQLModel, table=True):
    """What webhooks are signed with. During a rotation an owner has two."""

    __tablename__ = "webhook_secret"

    id: str = Field(primary_key=True)
    owner: str = Field(index=True)  # an endpoint's id, or "tenant:NAME" for its callback URLs
    secret: str  # "whsec_" and base64
    created_at: float
    retires_at: float | None = None  # None: the current one


class WebhookEndpoint(SQLModel, table=True):
    """Where a tenant is told of what ended."""

    __tablename__ = "webhook_endpoint"

    id: str = Field(primary_key=True)
    tenant: str = Field(default="default", index=True)
    url: str
    events: str  # JSON list of event types; "batch.*", "job.*" and "*" are patterns
    match: str | None = Field(default=None, sa_column=Column(Text))  # JSON: metadata that a job or batch must have
    disabled: str | None = None  # why it is not told any more
    created_at: float


class WebhookDelivery(SQLModel, table=True):
    """One event for one receiver. The body is made from the ledger when it is sent, for what ended does not change."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index(
            "ix_delivery_due",
            "next_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_delivery_receiver",
            "receiver",
            "next_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_delivery_turn",
            "tenant",
            "receiver",
            "next_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_delivery_claimed",
            "receiver",
            sqlite_where=text("claimed_by IS NOT NULL"),
            postgresql_where=text("claimed_by IS NOT NULL"),
        ),
        Index("ix_delivery_tenant", "tenant", "id"),
    )

    id: str = Field(primary_key=True)  # the webhook-id of all its tries
    tenant: str = "default"
    endpoint_id: str | None = Field(default=None, index=True)  # None: a callback URL
    url: str
    receiver: str  # whose deliveries take turns: the endpoint, or a tenant's callback URLs of one server
    event: str  # such as "job.succeeded"
    object_id: str = Field(index=True)  # the job or batch
    data: str | None = Field(default=None, sa_column=Column(Text))  # JSON: what it says; None: made when it is sent
    state: str = "pending"  # "pending", "delivered", "dead"
    tries: int = 0
    next_at: float  # when the next try is due; while one runs, when it may be taken to have died
    claimed_by: str | None = None  # the worker that tries just now
    last_status: int | None = None
    last_error: str | None = None
    log: str = Field(default="[]", sa_column=Column(Text, nullable=False))  # JSON list of tries: at, status, error
    created_at: float
    ended_at: float | None = None


class Audit(SQLModel, table=True):
    """An act of administration."""

    __table_args__ = (Index("ix_audit_actor", "action", "actor", "at"), Index("ix_audit_tenant", "tenant", "id"))

    id: str = Field(primary_key=True)
    at: float
    actor: str  # an API key's id, "loopback", "command line: USER@HOST", or the address of whose key was refused
    tenant: str  # "": it concerns all, or nobody knows whom
    action: str  # such as "key.create"
    subject: str  # what it was done to
    old: str | None = Field(default=None, sa_column=Column(Text))  # JSON: what it changed, as that was before
    new: str | None = Field(default=None, sa_column=Column(Text))  # JSON: and as it is since
    times: int = 1  # how often it was done within an hour
    last_at: float | None = None  # when it was done last, if more than once
