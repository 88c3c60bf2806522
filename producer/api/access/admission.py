"""Admission control: backpressure for producers."""

import math
import random
from dataclasses import dataclass

from understudy.models.costs.budgets import amount
from understudy.models.request.wire import RequestError
from understudy.models.tenants import MINUTE_S, TenantLimits
from understudy.producer.api.access.auth import Caller
from understudy.producer.api.access.backlog import NEAR
from understudy.producer.api.context import Context
from understudy.producer.api.errors import ApiError

SHORTEST_S, LONGEST_S = 1.0, 88.0
SPREAD = 0.25
"""Random spread of Retry-After, so that callers rejected together do not return together: at most 110 seconds."""

UNKNOWN_S = 30.0
"""Wait in seconds when no job ended recently, so that no estimate is possible."""

FREE_SHARE = 4
"""A tenant without its own limit may have at most this multiple of the remaining capacity waiting: alone, four fifths
of the total, which leaves room for others."""


@dataclass(frozen=True, slots=True)
class Full:
    """Why there is no capacity, and the estimated wait in seconds."""

    code: str
    message: str
    wait_s: float


async def admit(api: Context, caller: Caller, jobs: int) -> None:
    """Return if this many more jobs may be accepted from this caller. They count from now on.

    Raises ApiError 429 with Retry-After when there is no capacity, RequestError when there never can be. To be called
    before anything of the request is written: all of it is accepted, or nothing.
    """
    at, room = api.clock(), api.settings.api.max_queued_jobs
    used = api.rooms.used(caller.tenant)
    limits = (await used.freshen(api.store, api.writer, at)).limits
    _refuse_impossible(caller, limits, room, jobs)
    near = api.rooms.waiting.total() + jobs >= NEAR * room
    await api.rooms.waiting.freshen(api.store, closely=near or limits.queued_jobs is not None)
    full = await _queue_full(api, caller, limits, jobs) or await _spent(api, caller.tenant, limits, jobs)
    if full is not None:
        raise _refusal(full)
    api.rooms.waiting.accepted(caller.tenant, jobs)
    used.accepted(at, jobs)


def give_back(api: Context, caller: Caller, jobs: int) -> None:
    """Undo `admit` for jobs that were not accepted after all."""
    api.rooms.waiting.accepted(caller.tenant, -jobs)
    api.rooms.used(caller.tenant).accepted(api.clock(), -jobs)


def _refuse_impossible(caller: Caller, limits: TenantLimits, room: int, jobs: int) -> None:
    alone = room * FREE_SHARE // (FREE_SHARE + 1) if _shares(caller, limits) else None
    most = {
        f"tenant '{limits.name}' may have waiting": alone,
        "the system may have waiting": room,
        f"tenant '{limits.name}' may have waiting by its limit": limits.queued_jobs,
        f"tenant '{limits.name}' may submit per minute": limits.jobs_per_minute,
    }
    for what, limit in most.items():
        if limit is not None and jobs > limit:
            raise RequestError(
                f"the request has {jobs:,} jobs, more than the {limit:,} that {what}; submit it in smaller parts",
                code="too_many_jobs",
            )


def _shares(caller: Caller, limits: TenantLimits) -> bool:
    """Whether there may be other tenants, and no limit is set for this one."""
    return caller.key_id is not None and limits.queued_jobs is None


async def _queue_full(api: Context, caller: Caller, limits: TenantLimits, jobs: int) -> Full | None:
    waiting, tenant = api.rooms.waiting, caller.tenant
    left = api.settings.api.max_queued_jobs - waiting.total() - jobs
    if left < 0:
        said = "the system is full: it has the maximum number of waiting jobs over all tenants"
        return Full("system_full", said, await _drained_in_s(api, -left))
    over, said = 0, ""
    if limits.queued_jobs is not None:
        over = waiting.of(tenant) + jobs - limits.queued_jobs
        said = f"its limit is {limits.queued_jobs:,}"
    elif _shares(caller, limits):
        over = waiting.of(tenant) + jobs - FREE_SHARE * left
        said = "the remaining capacity is for other tenants"
    if over <= 0:
        return None
    said = f"tenant '{tenant}' has {waiting.of(tenant):,} jobs waiting, and {said}"
    return Full("tenant_queue_full", said, await _drained_in_s(api, over))


async def _spent(api: Context, tenant: str, limits: TenantLimits, jobs: int) -> Full | None:
    used, at = api.rooms.used(tenant), api.clock()
    if limits.jobs_per_minute is not None:
        this, last = used.minutes(at)
        wait_s = window_wait_s(this, last, jobs, limits.jobs_per_minute, at % MINUTE_S)
        if wait_s > 0:
            said = f"tenant '{tenant}' submitted {this:,} jobs in this minute and {last:,} in the previous one"
            return Full("rate_limit_exceeded", f"{said}; its limit is {limits.jobs_per_minute:,} per minute", wait_s)
    if limits.usd_per_month is not None:
        use = await used.freshen(api.store, api.writer, at)
        spent, most = use.usd_this_month, limits.usd_per_month + use.usd_granted
        if spent >= most:
            said = f"tenant '{tenant}' spent {amount(spent)} USD this month; its limit is {amount(most)} USD"
            return Full("insufficient_quota", said, LONGEST_S)
    return None


def window_wait_s(this: int, last: int, jobs: int, limit: int, second: float) -> float:
    """Seconds until this many jobs fit into the sliding window: this minute plus the remaining weight of the last."""
    if this + last * (1 - second / MINUTE_S) + jobs <= limit:
        return 0.0
    if this + jobs <= limit:
        return max(SHORTEST_S, MINUTE_S * (1 - (limit - jobs - this) / last) - second)
    return MINUTE_S - second + MINUTE_S * (1 - (limit - jobs) / this)


async def _drained_in_s(api: Context, jobs: int) -> float:
    per_s = await api.rooms.drain_per_s(api.store, api.clock())
    return jobs / per_s if per_s else UNKNOWN_S


def _refusal(full: Full) -> ApiError:
    wait_s = min(LONGEST_S, max(SHORTEST_S, full.wait_s)) * random.uniform(1, 1 + SPREAD)
    seconds = math.ceil(wait_s)
    message = f"{full.message}; nothing was accepted, try again in {seconds} s"
    return ApiError(429, message, code=full.code, headers={"Retry-After": str(seconds)})
