"""Batches that wait for a person to act, and their resumption; both are announced in the same transaction.

A batch is *paused* when someone paused it, its jobs all failed alike, or its budget is spent: `resume` continues it. It
is *blocked* when it needs a person to act elsewhere (a key, a data rule, a budget of a tenant or provider): afterwards
it continues by itself.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, select, update

from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.state import OPEN_BATCH_STATES
from understudy.models.store.ledger import Area
from understudy.models.store.sql import GOES_ON, NOW, batch, clean
from understudy.models.store.webhooks.outbox import HELD_BATCH, announce_held, announce_resumed

_open = batch.c.state.in_([str(state) for state in OPEN_BATCH_STATES])
_is_blocked = (batch.c.blocked.is_not(None), GOES_ON)

HOLD_BATCH = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), _open)
    .values(paused=bindparam("reason"), pause_kind=str(PauseKind.OWNER))
)
"""Pause a batch, or change the reason of its pause."""

FIRST_HOLD = (
    HOLD_BATCH.where(batch.c.paused.is_(None))
    .values(paused_at=NOW)
    .returning(*HELD_BATCH, batch.c.paused.label("reason"))
)
"""Pause a batch that was not paused."""

RESUME_BATCH = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), _open)
    .values(paused=None, pause_kind=None, canary_passed=True, runs_until=None)
    .returning(batch.c.id)
)
"""Resume a batch and mark its canary as passed: its owner knows how its first jobs ended. A batch of a `run` no
longer depends on its process."""

RESUME_HELD = (
    RESUME_BATCH.where(batch.c.paused.is_not(None)).values(blocked=None, resumed_at=NOW).returning(*HELD_BATCH)
)
"""Resume a paused batch. If it is also still blocked, that is announced again."""

BLOCK_BATCH = update(batch).where(batch.c.id == bindparam("batch_id"), GOES_ON).values(blocked=bindparam("reason"))
"""Mark a batch as blocked, with the reason."""

FIRST_BLOCK = BLOCK_BATCH.where(batch.c.blocked.is_(None)).returning(*HELD_BATCH, batch.c.blocked.label("reason"))
"""Mark a batch as blocked that was not."""

UNBLOCK_BATCHES = (
    update(batch)
    .where(batch.c.id.in_(bindparam("ids", expanding=True)), *_is_blocked)
    .values(blocked=None)
    .returning(*HELD_BATCH)
)
"""Mark some batches as no longer blocked."""

BLOCKED = select(batch.c.id, batch.c.blocked).where(*_is_blocked)
"""Blocked batches with their reasons."""


class Pauses(Area):
    async def pause(self, batch_id: str, reason: str) -> bool:
        """Pause a batch: its jobs no longer start, running ones finish. False if it has ended or does not exist."""
        asked = {"batch_id": batch_id, "reason": clean(reason)}
        async with self._db.write() as connection:
            held = (await connection.execute(FIRST_HOLD, asked)).all()
            await announce_held(connection, held)
            return bool(held) or (await connection.execute(HOLD_BATCH, asked)).rowcount > 0

    async def resume(self, batch_id: str) -> bool:
        """Resume a paused batch. False if it has ended or does not exist."""
        asked = {"batch_id": batch_id}
        async with self._db.write() as connection:
            resumed = (await connection.execute(RESUME_HELD, asked)).all()
            await announce_resumed(connection, resumed)
            return bool(resumed) or (await connection.execute(RESUME_BATCH, asked)).first() is not None

    async def block(self, reasons: Mapping[str, str]) -> None:
        """Mark batches as blocked, with their reasons."""
        async with self._db.write() as connection:
            for batch_id, reason in sorted(reasons.items()):
                asked = {"batch_id": batch_id, "reason": clean(reason)}
                blocked = (await connection.execute(FIRST_BLOCK, asked)).all()
                await announce_held(connection, blocked)
                if not blocked:
                    await connection.execute(BLOCK_BATCH, asked)

    async def unblock(self, ids: Sequence[str]) -> None:
        """Mark these batches as no longer blocked."""
        async with self._db.write() as connection:
            await announce_resumed(connection, (await connection.execute(UNBLOCK_BATCHES, {"ids": list(ids)})).all())

    async def blocked(self) -> dict[str, str]:
        """Blocked batches with their reasons."""
        async with self._db.read() as connection:
            return {row.id: row.blocked for row in await connection.execute(BLOCKED)}
