"""A provider's key with a model, over HTTP and on the command line: its limits, its use, and what keeps it from use.

Built by `producer.status.provider_state`.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from understudy.models.failure import FailureClass, Scope
from understudy.models.limits.state import Source
from understudy.models.objects.shapes import described

ProviderState = Literal["ready", "full", "cooling", "resting", "probing", "disabled", "no_key", "unknown"]
"""What would happen to a call that wants to start now."""


@described
class LimitObject(TypedDict):
    limit: float | None
    """The limit now in force; null if there is none yet."""
    source: Source
    until: float | None
    """Until then the limit is reduced, because others use the account as well."""
    configured: int | None


@described
class DayObject(TypedDict):
    """The use of a limit per UTC day."""

    limit: int
    used: int | None
    """By all workers, including the expected use of calls in flight; null while Redis does not answer."""
    until: float | None
    """When the day ends."""


@described
class InFlight(TypedDict):
    limit: int | None
    source: Source
    """`learned`: a slow start, which ends as answers come."""
    configured: int | None
    now: int | None
    """Calls in flight of all workers; null while Redis does not answer."""


@described
class Calls(TypedDict):
    answered: int
    refused: int
    """Refused with a rate limit or overload error."""
    failed: int


@described
class CooldownObject(TypedDict):
    scope: Scope
    """`model`: this account with this model; `account`: all of its models; `provider`: this model for all keys."""
    until: float
    in_a_row: int
    """Consecutive cooldowns without an answer in between."""
    since: float
    """Start of the first of these cooldowns."""
    probing: bool
    """After `until`, single calls test it until one is answered."""
    next_start: float
    """When the next of these calls may start."""
    reason: str


@described
class DisabledObject(TypedDict):
    model: str | None
    failure: FailureClass
    since: float
    probe_at: float | None
    """When a single job may test it."""
    reason: NotRequired[str]
    """Only on the command line, because a provider's message may quote what a tenant sent."""


@described
class ProviderObject(TypedDict):
    """A provider's key with one model. Times are unix seconds."""

    object: Literal["provider"]
    provider: str
    key: str | None
    """Name of the key; null if the provider needs a key and has none."""
    account: str | None
    """Keys of the same account share its limits."""
    model: str | None
    protocol: str
    base_url: NotRequired[str]
    """Only on the command line, because it may be an internal address."""
    live: bool
    """False while Redis does not answer: values that only Redis has are missing."""
    state: ProviderState
    requests_per_minute: LimitObject
    tokens_per_minute: LimitObject
    requests_per_day: DayObject | None
    """null without a daily limit."""
    tokens_per_day: DayObject | None
    in_flight: InFlight
    next_start: float | None
    """When the next call may start; null if one may start now."""
    last_minute: Calls
    cooldowns: list[CooldownObject]
    disabled: list[DisabledObject]


@described
class ProviderList(TypedDict):
    object: Literal["list"]
    live: bool
    """False while Redis does not answer: values that only Redis has are missing."""
    data: list[ProviderObject]
