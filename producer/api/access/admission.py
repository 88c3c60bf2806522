"""Whether there is room for more: backpressure for producers, storage quotas of tenants, and free disk space."""

import math
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import amount
from understudy.models.request.wire import RequestError
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.tenants import MINUTE_S, NO_LIMIT, TenantLimits, TenantStore
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

DISK_SHARE = 4
"""By default, a tenant may use a quarter of the disk."""

STORED_ELSEWHERE = 10**12
OPEN_BATCHES = 1_000
FLOOR_SHARE, MOST_FLOOR = 20, 10**9
RETRY_S = 60

TENANT_FULL, DISK_FULL, TOO_MANY_BATCHES = "tenant_storage_full", "storage_full", "too_many_open_batches"


@dataclass(slots=True)
class Taken:
    """How many of the admitted jobs were accepted."""

    jobs: int = 0


@asynccontextmanager
async def admitted(api: Context, caller: Caller, jobs: int, size: int, *, batches: int = 0) -> AsyncIterator[Taken]:
    """Admit up to this many jobs, and bytes and batches to store. The jobs not taken by the end of the block are given
    back.

    Raises ApiError 429 with Retry-After when there is no capacity, RequestError when there never can be. To be entered
    before anything of the request is written: all of it is accepted, or nothing.
    """
    taken = Taken()
    await admit(api, caller, jobs)
    try:
        await admit_bytes(api, caller, size, batches=batches)
        yield taken
    finally:
        if jobs > taken.jobs:
            count_accepted(api, caller, taken.jobs - jobs)


async def admit(api: Context, caller: Caller, jobs: int) -> None:
    """Return if this many more jobs may be accepted from this caller. They count from now on."""
    room = api.settings.api.max_queued_jobs
    limits = (await api.rooms.used(caller.tenant).freshen(api.store, api.writer, api.clock())).limits
    _reject_impossible(caller, limits, room, jobs)
    near = api.rooms.waiting.total() + jobs >= NEAR * room
    await api.rooms.waiting.freshen(api.store, closely=near or limits.queued_jobs is not None)
    await _reject_full_queue(api, caller, limits, jobs)
    await _reject_spent(api, caller.tenant, limits, jobs)
    count_accepted(api, caller, jobs)


def count_accepted(api: Context, caller: Caller, jobs: int) -> None:
    """Count accepted jobs; negative for jobs that were not accepted after all."""
    api.rooms.waiting.accepted(caller.tenant, jobs)
    api.rooms.used(caller.tenant).accepted(api.clock(), jobs)


def _reject_impossible(caller: Caller, limits: TenantLimits, room: int, jobs: int) -> None:
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


async def _reject_full_queue(api: Context, caller: Caller, limits: TenantLimits, jobs: int) -> None:
    waiting, tenant = api.rooms.waiting, caller.tenant
    left = api.settings.api.max_queued_jobs - waiting.total() - jobs
    if left < 0:
        said = "the system is full: it has the maximum number of waiting jobs over all tenants"
        raise _no_room("system_full", said, await _drained_in_s(api, -left))
    over, said = 0, ""
    if limits.queued_jobs is not None:
        over = waiting.of(tenant) + jobs - limits.queued_jobs
        said = f"its limit is {limits.queued_jobs:,}"
    elif _shares(caller, limits):
        over = waiting.of(tenant) + jobs - FREE_SHARE * left
        said = "the remaining capacity is for other tenants"
    if over > 0:
        said = f"tenant '{tenant}' has {waiting.of(tenant):,} jobs waiting, and {said}"
        raise _no_room("tenant_queue_full", said, await _drained_in_s(api, over))


async def _reject_spent(api: Context, tenant: str, limits: TenantLimits, jobs: int) -> None:
    used, at = api.rooms.used(tenant), api.clock()
    if limits.jobs_per_minute is not None:
        this, last = used.minutes(at)
        wait_s = window_wait_s(this, last, jobs, limits.jobs_per_minute, at % MINUTE_S)
        if wait_s > 0:
            said = f"tenant '{tenant}' submitted {this:,} jobs in this minute and {last:,} in the previous one"
            raise _no_room("rate_limit_exceeded", f"{said}; its limit is {limits.jobs_per_minute:,} per minute", wait_s)
    if limits.usd_per_month is not None:
        use = await used.freshen(api.store, api.writer, at)
        spent, most = use.usd_this_month, limits.usd_per_month + use.usd_granted
        if spent >= most:
            said = f"tenant '{tenant}' spent {amount(spent)} USD this month; its limit is {amount(most)} USD"
            raise _no_room("insufficient_quota", said, LONGEST_S)


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


def _no_room(code: str, why: str, wait_s: float) -> ApiError:
    return _full(code, why, math.ceil(min(LONGEST_S, max(SHORTEST_S, wait_s)) * random.uniform(1, 1 + SPREAD)))


async def admit_bytes(api: Context, caller: Caller, more: int, *, batches: int = 0) -> None:
    """Return if `more` bytes and `batches` may be stored for this caller. They count from now on, until the ledger is
    read again.

    Raises ApiError 429, StoreError.
    """
    if batches and api.settings.database_url is None:
        reject_near_full(api.settings, more)
    limits = (await api.rooms.used(caller.tenant).freshen(api.store, api.writer, api.clock())).limits
    most, most_batches = stored_limit(api.settings, limits, caller), batches_limit(api.settings, limits, caller)
    if most == most_batches == NO_LIMIT:
        return
    stored = api.rooms.stored(caller.tenant)
    known = await stored.freshen(api.store, TenantStore(most, most_batches))
    if known.stored_bytes + more > most:
        raise _tenant_full(caller.tenant, known.stored_bytes, more, most)
    if batches and known.open_batches + batches > most_batches:
        raise _full(
            TOO_MANY_BATCHES,
            f"tenant '{caller.tenant}' has {known.open_batches:,} unfinished batches, and its limit is "
            f"{most_batches:,}; wait for some to finish, or submit fewer, larger batches",
        )
    stored.accepted(more, batches)


async def admitted_bytes(
    api: Context, caller: Caller, chunks: AsyncIterator[bytes], declared: int = 0
) -> AsyncIterator[bytes]:
    """The chunks of an upload, each once there is room for it; concurrent uploads count as well.

    `declared`: its declared length. An upload that does not fit is not read.
    """
    stored, taken = api.rooms.stored(caller.tenant), 0
    if api.settings.files_url is None:
        reject_near_full(api.settings, declared)
    await admit_bytes(api, caller, declared)
    stored.accepted(-declared)
    try:
        async for chunk in chunks:
            if api.settings.files_url is None:
                reject_near_full(api.settings, len(chunk))
            await admit_bytes(api, caller, len(chunk))
            stored.accepted(-len(chunk))
            stored.arriving += len(chunk)
            taken += len(chunk)
            yield chunk
        stored.accepted(taken + ROW_BYTES)
    finally:
        stored.arriving -= taken


def stored_limit(settings: Settings, limits: TenantLimits, caller: Caller) -> int:
    if limits.stored_bytes is not None:
        return limits.stored_bytes
    if settings.api.tenant_stored_bytes is not None:
        return settings.api.tenant_stored_bytes
    if caller.key_id is None:
        return NO_LIMIT
    if settings.database_url is not None and settings.files_url is not None:
        return STORED_ELSEWHERE
    return shutil.disk_usage(_existing(settings.data)).total // DISK_SHARE


def batches_limit(settings: Settings, limits: TenantLimits, caller: Caller) -> int:
    for limit in (limits.open_batches, settings.api.tenant_open_batches):
        if limit is not None:
            return limit
    return NO_LIMIT if caller.key_id is None else OPEN_BATCHES


def kept_free(settings: Settings) -> int:
    """Bytes of disk space reserved for work that is already accepted."""
    if settings.api.min_free_bytes is not None:
        return settings.api.min_free_bytes
    return min(MOST_FLOOR, shutil.disk_usage(_existing(settings.data)).total // FLOOR_SHARE)


def reject_near_full(settings: Settings, more: int) -> None:
    """Reject uploads and batches first when the disk fills up. The error has no numbers, since all tenants share the
    disk. Raises ApiError."""
    if shutil.disk_usage(_existing(settings.data)).free - more < kept_free(settings):
        raise _full(
            DISK_FULL, "the server's disk is nearly full, so uploads and batches are not accepted at the moment"
        )


def is_left_to_answers(settings: Settings, more: int) -> bool:
    """Whether the disk has room for this many more bytes of answers until callers take them: half of what uploads leave
    free is left to the ledger."""
    return shutil.disk_usage(_existing(settings.data)).free - more >= kept_free(settings) // 2


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def _tenant_full(tenant: str, stored: int, more: int, most: int) -> ApiError:
    return _full(
        TENANT_FULL,
        f"tenant '{tenant}' stores {_size(stored)} of at most {_size(most)}: {_size(more)} more do not fit; delete "
        "files that are no longer needed, or ask the operator for more room (understudy tenants set --stored-bytes, "
        "understudy prune)",
    )


def _full(code: str, said: str, wait_s: int = RETRY_S) -> ApiError:
    message = f"{said}; nothing was accepted, try again in {wait_s} s"
    return ApiError(429, message, code=code, headers={"Retry-After": str(wait_s)})


def _size(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"
