"""Fields of jobs and batches that mean the same in every request."""

import math

from pydantic import ConfigDict, Field

from understudy.models.config.settings import Settings
from understudy.models.request.wire import RequestError
from understudy.models.routing.request_options import ROUTE_WORDS, RouteOptions
from understudy.models.state import Priority, PriorityWord
from understudy.models.tenants import LEAST_WEIGHT, MOST_WEIGHT
from understudy.models.webhook_receivers import RefusedReceiver, check_receiver

MOST_PAIRS = 16
MOST_KEY_CHARS = 64
MOST_VALUE_CHARS = 512

LONGEST_DEADLINE_S = 7 * 86_400
"""Of jobs and batches. The default is `deadline_s` of the settings; what is paused or waits has no other end."""


class JobFields(RouteOptions):
    """Additional fields of Understudy, allowed in the body of any job. For the OpenAPI document; the functions below
    check their values."""

    model_config = ConfigDict(extra="allow")

    priority: PriorityWord | None = None
    """`interactive`, `normal` (default) or `bulk`."""
    callback_url: str | None = None
    """URL that receives a signed POST when the job ends."""
    metadata: dict[str, str] | None = None
    """Up to 16 key-value pairs; keys up to 64 characters, values up to 512."""
    expires_in_s: float | None = Field(default=None, gt=0, le=LONGEST_DEADLINE_S)
    """Seconds until the job expires, at most 604,800 (7 days)."""
    custom_id: str | None = None
    """The caller's id for the job."""


JOB_WORDS = frozenset(JobFields.model_fields.keys() - set(ROUTE_WORDS))
"""The fields of a body that are about the job, not its route."""


def metadata(value: object) -> dict[str, str] | None:
    """The caller's metadata of an object, within OpenAI's limits. Raises RequestError."""
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > MOST_PAIRS:
        raise RequestError(f"'metadata' must be an object with at most {MOST_PAIRS} pairs", "metadata")
    for key, text in value.items():
        if not 1 <= len(key) <= MOST_KEY_CHARS or "\0" in key:
            raise RequestError(f"a key of 'metadata' must have 1 to {MOST_KEY_CHARS} characters, none NUL", "metadata")
        if not isinstance(text, str) or len(text) > MOST_VALUE_CHARS or "\0" in text:
            raise RequestError(
                f"a value of 'metadata' must be text of at most {MOST_VALUE_CHARS} characters, none NUL",
                f"metadata.{key}",
            )
    return value


def priority(value: object, default: Priority) -> Priority:
    """Raises RequestError."""
    if value is None:
        return default
    for each in Priority:
        if value == each.queue:
            return each
    raise RequestError(f"'priority' must be one of {', '.join(each.queue for each in Priority)}", "priority")


def receiver(value: object, word: str, settings: Settings) -> str | None:
    """The URL to notify; its host is resolved at delivery. Raises RequestError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise RequestError(f"'{word}' must be a URL", word)
    try:
        check_receiver(value, settings.webhooks)
    except RefusedReceiver as error:
        raise RequestError(f"'{word}' {error}", word, "invalid_url") from None
    return value


def lifetime(value: object, default_s: float) -> float:
    """Seconds until a job expires. Raises RequestError."""
    if value is None:
        return default_s
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_DEADLINE_S:
        raise RequestError(
            f"'expires_in_s' must be a number of seconds above 0 and at most {LONGEST_DEADLINE_S:,} (7 days)",
            "expires_in_s",
        )
    return float(value)


def budget(value: float | None) -> float | None:
    """The budget of a batch in US dollars. Raises RequestError."""
    if value is None or (_is_number(value) and 0 < value < math.inf):
        return value
    raise RequestError("'budget_usd' must be an amount of US dollars above 0", "budget_usd")


def weight(value: float) -> float:
    """The share of a batch relative to others. Raises RequestError."""
    if _is_number(value) and LEAST_WEIGHT <= value <= MOST_WEIGHT:
        return value
    raise RequestError(f"'weight' must be a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}", "weight")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
