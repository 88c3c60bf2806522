"""The tables of the ledger. Columns that hold JSON are text; times are unix seconds (float).

Only `models.store` reads and writes them. Docstrings and comments say what a column means, never how it is used.
"""

from sqlalchemy import BigInteger, Column, Index, Text, text
from sqlmodel import Field, SQLModel

from understudy.models.state import BatchState, JobState


def _partial(name: str, *columns: str, where: str) -> Index:
    """An index of the rows that meet a condition."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Chain(SQLModel, table=True):
    """A chain as accepted, shared by all jobs that use it."""

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
    total: int = 0  # number of rows, known once validated
    paused: str | None = None  # why it is paused; None if it is not
    pause_kind: str | None = None  # its `PauseKind`, which determines the consequences
    paused_at: float | None = None  # start of the latest pause
    resumed_at: float | None = None  # end of the latest pause
    runs_until: float | None = None  # of a `run`: lease of its process; its jobs start no later
    blocked: str | None = Field(default=None, sa_column=Column(Text))  # what a person must fix before it continues
    created_at: float
    expires_at: float
    started_at: float | None = None  # when it became in_progress
    cancelling_at: float | None = None
    ended_at: float | None = None
    error: str | None = Field(default=None, sa_column=Column(Text))  # JSON list of line errors of a failed one
    input_file_id: str | None = Field(default=None, index=True)
    completion_window: str = "24h"  # as the caller wrote it
    options: str | None = Field(default=None, sa_column=Column(Text))  # JSON: settings for its lines, while validating
    callback_url: str | None = None  # notified when it ends
    output_expires_s: float | None = None  # after its end
    request_hash: str | None = Field(default=None, index=True)  # of the whole create request, to recognise a repetition
    filled_by: str | None = None  # the process that writes its rows
    fill_until: float = 0.0  # lease of that process
    fill_tries: int = 0  # filling attempts since rows were last written
    weight: float = 1.0  # its share among batches of one tenant and priority
    budget_usd: float | None = None  # it is paused before it would cost more
    estimated_usd: float | None = None  # estimated cost when accepted
    unpriced_lines: int = 0  # lines that the estimate leaves out, because their model has no known price
    canary_passed: bool = False  # a job succeeded, or its owner resumed it: the canary is decided
    waiting: str | None = Field(default=None, sa_column=Column(Text))  # JSON: the planner's wait reason
    waiting_at: float = 0.0  # when the planner reported it
    delivered_at: float | None = None  # when its owner received its results: their content may be removed
    stored_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    """Bytes of its rows and prompts, less everything removed, answers included; `tally` has the bytes of the
    answers."""


class Job(SQLModel, table=True):
    """One completion owed. `(worker_id, claim_no)` fences everything that is written about it."""

    __table_args__ = (
        _partial(
            "ix_job_ready", "batch_id", "tenant", "chain_id", "priority", "not_before", "id", where="state = 'queued'"
        ),
        _partial("ix_job_due", "not_before", where="state = 'queued' AND not_before > 0"),
        _partial("ix_job_waiting", "batch_id", where="state = 'queued' AND not_before > 0"),
        _partial("ix_job_deadline", "expires_at", where="state = 'queued'"),
        _partial("ix_job_running", "worker_id", where="state = 'running'"),
        _partial("ix_job_running_batch", "batch_id", where="state = 'running'"),
        _partial("ix_job_delivered", "delivered_at", where="delivered_at IS NOT NULL"),
        Index("ix_job_batch", "batch_id", "id"),
        Index("ix_job_chain", "chain_id"),
        Index("ix_job_tenant", "tenant", "id"),
        _partial("ix_job_stored", "tenant", "bytes", "answer_bytes", where="batch_id = ''"),
    )

    id: str = Field(primary_key=True)
    batch_id: str  # "" for a single job
    tenant: str = "default"
    custom_id: str
    line: int = 0
    chain_id: str
    priority: int
    state: str = Field(default=JobState.QUEUED)
    not_before: float = 0.0  # 0: never put back
    expires_at: float
    tokens: int = 0  # estimated input tokens
    max_output_tokens: int = 0  # maximum tokens of its answer; 0: the request does not say
    bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of its row and its prompt
    worker_id: str | None = None  # who holds the claim while running
    claim_no: int = 0  # grows with every claim
    cancel_requested: bool = False  # cancelled by its owner while running
    crashes: int = 0  # workers that died while running it, possibly because of it
    attempts: int = 0  # provider calls recorded so far
    progress: str | None = Field(default=None, sa_column=Column(Text))  # its position in the chain
    waiting: str | None = None  # JSON: why it was put back
    callback_url: str | None = None  # notified when it ends; single jobs only
    note: str | None = Field(default=None, sa_column=Column(Text))  # the caller's metadata, JSON
    delivered_at: float | None = None  # of a single job: when its owner received its result
    answer_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))  # of its result; None: not counted
    created_at: float
    started_at: float | None = None  # latest claim
    ended_at: float | None = None


class Run(SQLModel, table=True):
    """An output file of `understudy run`, and the version of its input that it contains."""

    id: str = Field(primary_key=True)  # hash of the file's path
    version: int  # 0: it has no lines
    taken_until: float = 0.0  # lease of the process that owns it


class RunLine(SQLModel, table=True):
    """A line of a run's input in one version, and the job that answers it.

    A line of an older version is kept while its job has an answer that could be reused.
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
    named: bool  # the custom_id is the caller's own
    request: str  # hash of what is sent to the model
    chain_id: str  # the chain it would use today
    extra: str | None = Field(default=None, sa_column=Column(Text))  # as in `job_input`; None: as there
    job_id: str | None = None  # None while being compared and unassigned
    again_id: str | None = None  # created by a retry; counts once answered, or if `job_id` is not
    ask: str | None = None  # while being compared: why it is to be sent


class JobInput(SQLModel, table=True):
    """The prompt, separate from the row that is updated, and prunable."""

    __tablename__ = "job_input"

    job_id: str = Field(primary_key=True)
    body: str = Field(sa_column=Column(Text, nullable=False))
    extra: str | None = Field(default=None, sa_column=Column(Text))  # what the output repeats (CSV columns)


class Result(SQLModel, table=True):
    """The single terminal record of a job that succeeded or failed."""

    __table_args__ = (Index("ix_result_batch", "batch_id", "job_id"),)

    job_id: str = Field(primary_key=True)
    batch_id: str
    status_code: int | None = None  # of the provider's HTTP answer
    body: str | None = Field(default=None, sa_column=Column(Text))  # completion, or the provider's error body
    error: str | None = Field(default=None, sa_column=Column(Text))  # JSON, if there was no HTTP answer
    failure: str | None = None  # the class of a job that failed
    step: str | None = None  # the step with the error, "provider/model"; None: not a step's
    provider: str | None = None
    model: str | None = None
    key: str | None = None  # the credential's name
    fallback_index: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: bool = False  # its price is unknown, so its cost is, too
    latency_ms: int = 0
    created_at: float


class Attempt(SQLModel, table=True):
    """One provider call. Append-only and not fenced: a late answer is still paid for.

    A new column needs a migration; `AttemptRecord` (models/jobs/execution.py), which worker/job/provider_call.py fills;
    `AttemptObject` (models/objects/attempt.py) for HTTP and JSON; producer/status/printing.py, producer/web/templates/
    job.html and producer/client/results.py to show it; and, if it has anyone's words, models/store/erasure.py.
    """

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
    failure: str | None = Field(default=None, index=True)  # failure class; None: answered
    status: int | None = None
    latency_ms: int
    started_at: float
    message: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: bool = False  # it used tokens without a known price
    possibly_billed: bool = False


class Tally(SQLModel, table=True):
    """Counters, one row per writer and minute to avoid lock contention; summed on read.

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
    unpriced: int = 0  # calls without a known price, which the cost leaves out
    bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of the answers


class Lane(SQLModel, table=True):
    """Written by earlier versions only. Lanes are now read from the jobs; migrations drop nothing."""

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
    """A disabled credential, and why. `model` "" means for all models."""

    provider: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    model: str = Field(primary_key=True, default="")
    failure: str  # failure class
    reason: str
    fingerprint: str = ""  # short hash of the secret: a rotated key is tried again
    since: float
    probe_at: float | None = None  # when one real job may probe it
    job_id: str | None = None  # the job whose provider message `reason` repeats; removed with the job's content


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
    batch_id: str | None = Field(default=None, index=True)  # the batch whose output it is
    part: str | None = None  # "output" or "error"; None for an upload
    created_at: float
    expires_at: float | None = Field(default=None, index=True)


class Idempotency(SQLModel, table=True):
    """A request with an idempotency key, and what it created: the same request again creates nothing new."""

    __table_args__ = (
        _partial("ix_idempotency_answered", "object_id", where="answer IS NOT NULL"),
        _partial("ix_idempotency_stored", "tenant", "answer_bytes", where="answer IS NOT NULL"),
    )

    tenant: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    body_hash: str
    object_id: str  # the job or batch
    answer: str | None = Field(default=None, sa_column=Column(Text))  # JSON, if the request created several jobs
    answer_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    created_at: float = Field(index=True)


class Tenant(SQLModel, table=True):
    """The owner of jobs, with its limits. A limit that is None does not apply."""

    name: str = Field(primary_key=True)
    jobs_per_minute: int | None = None
    queued_jobs: int | None = None
    usd_per_month: float | None = None  # calendar month, UTC
    weight: float = 1.0  # its share among tenants
    require: str | None = Field(default=None, sa_column=Column(Text))  # JSON: tags that its providers must have
    forbid: str | None = Field(default=None, sa_column=Column(Text))  # JSON: tags that they must not have
    store_content: str | None = None  # "always" or "until_delivered"; None: the installation's setting
    allow: str | None = Field(default=None, sa_column=Column(Text))  # JSON list: the chains and models it may use
    stored_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))  # None: the installation's setting
    open_batches: int | None = Field(default=None, sa_column=Column(BigInteger))  # the same
    created_at: float


class TenantTally(SQLModel, table=True):
    """Usage of a tenant, one row per writer and period to avoid lock contention; summed on read.

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
    """Cost of a provider's calls, one row per writer and day to avoid lock contention; summed on read."""

    __tablename__ = "provider_tally"

    provider: str = Field(primary_key=True)
    writer: str = Field(primary_key=True)
    day: int = Field(primary_key=True)  # unix seconds // 86400
    cost_usd: float = 0.0


class BudgetGrant(SQLModel, table=True):
    """Money on top of a budget, granted by `resume` when the budget of a tenant or provider was spent."""

    __tablename__ = "budget_grant"

    subject: str = Field(primary_key=True)  # "tenant:NAME" or "provider:NAME"
    period: str = Field(primary_key=True)  # such as "2026-11" or "2026-11-26"
    usd: float = 0.0


class ApiKey(SQLModel, table=True):
    """A key of the HTTP API. Only its hash is stored."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)  # the part of the key that may be shown
    tenant: str = Field(default="default", index=True)
    name: str
    hash: str  # SHA-256 of the secret part, hexadecimal
    scopes: str  # "read", "submit", "admin", separated by spaces
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


class WebhookSecret(SQLModel, table=True):
    """A signing secret for webhooks. During a rotation an owner has two."""

    __tablename__ = "webhook_secret"

    id: str = Field(primary_key=True)
    owner: str = Field(index=True)  # an endpoint's id, or "tenant:NAME" for its callback URLs
    secret: str  # "whsec_" and base64
    created_at: float
    retires_at: float | None = None  # None: the current one


class WebhookEndpoint(SQLModel, table=True):
    """Where a tenant is notified of ended jobs and batches."""

    __tablename__ = "webhook_endpoint"

    id: str = Field(primary_key=True)
    tenant: str = Field(default="default", index=True)
    url: str
    events: str  # JSON list of event types; "batch.*", "job.*" and "*" are patterns
    match: str | None = Field(default=None, sa_column=Column(Text))  # JSON: metadata that a job or batch must have
    disabled: str | None = None  # why it is disabled
    created_at: float


class WebhookDelivery(SQLModel, table=True):
    """One event for one receiver. The body is built from the ledger when sent, because ended jobs and batches do not
    change."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        _partial("ix_delivery_due", "next_at", where="state = 'pending'"),
        _partial("ix_delivery_receiver", "receiver", "next_at", where="state = 'pending'"),
        _partial("ix_delivery_turn", "tenant", "receiver", "next_at", where="state = 'pending'"),
        _partial("ix_delivery_claimed", "receiver", where="claimed_by IS NOT NULL"),
        Index("ix_delivery_tenant", "tenant", "id"),
    )

    id: str = Field(primary_key=True)  # the webhook-id of all its attempts
    tenant: str = "default"
    endpoint_id: str | None = Field(default=None, index=True)  # None: a callback URL
    url: str
    receiver: str  # deliveries with the same value take turns: the endpoint, or a tenant's callback URLs of one server
    event: str  # such as "job.succeeded"
    object_id: str = Field(index=True)  # the job or batch
    data: str | None = Field(default=None, sa_column=Column(Text))  # JSON content; None: built when sent
    state: str = "pending"  # "pending", "delivered", "dead"
    tries: int = 0
    next_at: float  # when the next attempt is due; while one runs, when it counts as dead
    claimed_by: str | None = None  # the worker of the current attempt
    last_status: int | None = None
    last_error: str | None = None
    log: str = Field(default="[]", sa_column=Column(Text, nullable=False))  # JSON list of attempts: at, status, error
    created_at: float
    ended_at: float | None = None


class Audit(SQLModel, table=True):
    """An administrative action."""

    __table_args__ = (Index("ix_audit_actor", "action", "actor", "at"), Index("ix_audit_tenant", "tenant", "id"))

    id: str = Field(primary_key=True)
    at: float
    actor: str  # an API key's id, "loopback", "command line: USER@HOST", or the address of a rejected key's sender
    tenant: str  # "": it concerns all, or the tenant is unknown
    action: str  # such as "key.create"
    subject: str  # the object of the action
    old: str | None = Field(default=None, sa_column=Column(Text))  # JSON: changed values before
    new: str | None = Field(default=None, sa_column=Column(Text))  # JSON: changed values after
    times: int = 1  # how often it was done within an hour
    last_at: float | None = None  # when it was last done, if more than once
