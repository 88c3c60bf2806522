"""Storage quotas of tenants and free disk space, checked before anything of a request is stored."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from understudy.models.config.settings import Settings
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.tenants import NO_LIMIT, TenantLimits, TenantStore
from understudy.producer.api.access.auth import Caller
from understudy.producer.api.context import Context
from understudy.producer.api.errors import ApiError

DISK_SHARE = 4
"""By default, a tenant may use a quarter of the disk."""

STORED_ELSEWHERE = 10**12
OPEN_BATCHES = 1_000
FLOOR_SHARE, MOST_FLOOR = 20, 10**9
RETRY_S = 60

TENANT_FULL, DISK_FULL, TOO_MANY_BATCHES = "tenant_storage_full", "storage_full", "too_many_open_batches"


async def admit_bytes(api: Context, caller: Caller, more: int, *, batches: int = 0) -> None:
    """Return if `more` bytes and `batches` may be stored for this caller. They count from now on, until the ledger is
    read again.

    Raises ApiError 429, StoreError.
    """
    if batches and api.settings.database_url is None:
        refuse_near_full(api.settings, more)
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


async def admitted(
    api: Context, caller: Caller, chunks: AsyncIterator[bytes], declared: int = 0
) -> AsyncIterator[bytes]:
    """The chunks of an upload, each once there is room for it; concurrent uploads count as well.

    `declared`: its declared length. An upload that does not fit is not read.
    """
    stored, taken = api.rooms.stored(caller.tenant), 0
    if api.settings.files_url is None:
        refuse_near_full(api.settings, declared)
    await admit_bytes(api, caller, declared)
    stored.accepted(-declared)
    try:
        async for chunk in chunks:
            if api.settings.files_url is None:
                refuse_near_full(api.settings, len(chunk))
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
    for said in (limits.open_batches, settings.api.tenant_open_batches):
        if said is not None:
            return said
    return NO_LIMIT if caller.key_id is None else OPEN_BATCHES


def kept_free(settings: Settings) -> int:
    """Bytes of disk space reserved for work that is already accepted."""
    if settings.api.min_free_bytes is not None:
        return settings.api.min_free_bytes
    return min(MOST_FLOOR, shutil.disk_usage(_existing(settings.data)).total // FLOOR_SHARE)


def refuse_near_full(settings: Settings, more: int) -> None:
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


def _full(code: str, said: str) -> ApiError:
    message = f"{said}; nothing was accepted, try again in {RETRY_S} s"
    return ApiError(429, message, code=code, headers={"Retry-After": str(RETRY_S)})


def _size(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"
