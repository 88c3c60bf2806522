"""Jobs and batches as they are submitted.

All times are unix seconds of the ledger's clock unless a name ends in `_s` (a duration in seconds).
"""

from dataclasses import dataclass, field

from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain
from understudy.models.state import Priority

SINGLE = ""
"""The batch id of single jobs."""


@dataclass(slots=True)
class NewBatch:
    id: str
    priority: Priority = Priority.BULK
    tenant: str = "default"
    endpoint: str = "/v1/chat/completions"
    expires_at: float = 0.0
    identity: str | None = None  # of a `run`'s batch: the run's id, a hyphen, and a unique part
    retry_of: str | None = None
    source: str = ""  # name of the input, for people
    metadata: dict[str, str] = field(default_factory=dict)
    input_file_id: str | None = None
    completion_window: str = "24h"  # as the caller wrote it
    options: str | None = None  # JSON: settings for its lines, for the process that writes them later
    callback_url: str | None = None
    output_expires_s: float | None = None  # after its end
    request_hash: str | None = None  # of the whole create request
    weight: float = 1.0  # its share when batches of one tenant and priority take turns
    budget_usd: float | None = None
    runs_until: float | None = None  # of a `run`: 0.0 until its process renews it


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of a batch. `usd` None: no price is known; `unpriced_lines` are those without one."""

    usd: float | None = None
    unpriced_lines: int = 0


@dataclass(slots=True)
class NewJob:
    id: str
    body: str  # the chat-completion body as JSON, without model, fallbacks and our other routing options
    chain: Chain
    custom_id: str
    line: int = 0  # 1-based line of the input, 0 for single jobs
    tokens: int = 0  # estimated input tokens
    max_output_tokens: int = 0  # maximum tokens of its answer; 0: the request does not say
    priority: Priority = Priority.BULK
    tenant: str = "default"
    not_before: float = 0.0
    expires_at: float = 0.0
    expires_in_s: float | None = None  # instead of `expires_at`: relative to acceptance, by the ledger's clock
    extra: str | None = None  # JSON that the output repeats, e.g. the CSV columns of the line
    callback_url: str | None = None
    metadata: dict[str, str] | None = None  # of a job that is submitted alone
    needs: Needs | None = None  # while its input is read; None: text only, or unknown
    named: bool = False  # `custom_id` is the caller's own, not derived from the line number
