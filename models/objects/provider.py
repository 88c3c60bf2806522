"""A provider's key with a model, over HTTP and on the command line: its limits, its use, and what keeps it from use.

Built by `producer.status.provider_state`.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from understudy.models.failure import FailureClass, Scope
from understudy.models.limits.state import Source
from understudy.models.objects.shapes import described

ProviderState = Literal["ready", "full", "cooling", "resting", "probing", "set_aside", "no_key", "unknown"]
"""What would become of a call that wants to start now."""


@described
class LimitObject(TypedDict):
    limit: float | None
    """What holds now; null: nothing limits yet."""
    source: Source
    until: float | None
    """It is lower than usual until then, because others use the account as well."""
    configured: int | None


@described
class DayObject(TypedDict):
    """What is used of a UTC day's limit."""

    limit: int
    used: int | None
    """Over all workers, calls under way with what they are expected to use; null while Redis does not answer."""
    until: float | None
    """When the day ends."""


@described
class InFlight(TypedDict):
    limit: int | None
    source: Source
    """`learned`: a slow start, which ends as calls are answered."""
    configured: int | None
    now: int | None
    """Over all workers; null while Redis does not answer."""


@described
class Calls(TypedDict):
    answered: int
    refused: int
    """By a rate limit or an overload."""
    failed: int


@described
class CooldownObject(TypedDict):
    scope: Scope
    """`model`: this account with this model; `account`: all of its models; `provider`: this model for all keys."""
    until: float
    in_a_row: int
    """Cooldowns without an answer between."""
    since: float
    """When the first of them began."""
    probing: bool
    """From its end on single calls try it until one is answered."""
    next_start: float
    """When the next of them may start."""
    reason: str


@described
class SetAsideObject(TypedDict):
    model: str | None
    failure: FailureClass
    since: float
    probe_at: float | None
    """When one job may try it again."""
    reason: NotRequired[str]
    """On the command line only: a provider's own words may quote what a tenant sent."""


@described
class ProviderObject(TypedDict):
    """A key of a provider with one model. Times are unix seconds."""

    object: Literal["provider"]
    provider: str
    key: str | None
    """Its name; null: the provider needs a key and has none."""
    account: str | None
    """Keys of one account share its limits."""
    model: str | None
    protocol: str
    base_url: NotRequired[str]
    """On the command line only: it may be an address of the inner network."""
    live: bool
    """False: Redis does not answer, so what only it knows is missing."""
    state: ProviderState
    requests_per_minute: LimitObject
    tokens_per_minute: LimitObject
    requests_per_day: DayObject | None
    """null: a day has no limit."""
    tokens_per_day: DayObject | None
    in_flight: InFlight
    next_start: float | None
    """When the next call may start, if none could now."""
    last_minute: Calls
    cooldowns: list[CooldownObject]
    set_aside: list[SetAsideObject]


@described
class ProviderList(TypedDict):
    object: Literal["list"]
    live: bool
    """False: Redis does not answer, so what only it knows is missing."""
    data: list[ProviderObject]
