"""Batches that are held until a person acts, and those that go on again; both are told of in the same transaction.

A batch is *paused* when somebody held it, its jobs all failed alike, or its budget is spent: `resume` lets it go on.
It is *blocked* when nothing but a person's act elsewhere helps (a key, a data rule, a budget of a tenant or provider):
then it goes on by itself.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, select, update

from understudy.models.state import OPEN_BATCH_STATES
from understudy.models.store.ledger import Area
from understudy.models.store.sql import GOES_ON, NOW, batch, clean
from understudy.models.store.webhooks.outbox import HELD_BATCH, announce_held, announce_resumed

_open = batch.c.state.in_([str(state) for state in OPEN_BATCH_STATES])
_is_blocked = (batch.c.blocked.is_not(None), GOES_ON)

HOLD_BATCH = update(batch).where(batch.c.id == bindparam("batch_id"), _open).values(paused=bindparam("reason"))
"""Hold a batch, or hold it for another reason."""

FIRST_HOLD = (
    HOLD_BATCH.where(batch.c.paused.is_(None))
    .values(paused_at=NOW)
    .returning(*HELD_BATCH, batch.c.paused.label("reason"))
)
"""Hold a batch that was not held."""

RESUME_BATCH = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), _open)
    .values(paused=None, canary_passed=True, runs_until=None)
    .returning(batch.c.id)
)
"""Let a batch go on, without its `run` if it is one's: its owner knows how its first jobs ended."""

RESUME_HELD = (
    RESUME_BATCH.where(batch.c.paused.is_not(None)).values(blocked=None, resumed_at=NOW).returning(*HELD_BATCH)
)
"""Let a batch go on that is held. If it is still blocked, too, that is news to who was told that it goes on."""

BLOCK_BATCH = update(batch).where(batch.c.id == bindparam("batch_id"), GOES_ON).values(blocked=bindparam("reason"))
"""Say that only a person can let a batch go on, and why."""

FIRST_BLOCK = BLOCK_BATCH.where(batch.c.blocked.is_(None)).returning(*HELD_BATCH, batch.c.blocked.label("reason"))
"""Say so of a batch of which it was not said."""

UNBLOCK_BATCHES = (
    update(batch)
    .where(batch.c.id.in_(bindparam("ids", expanding=True)), *_is_blocked)
    .values(blocked=None)
    .returning(*HELD_BATCH)
)
"""Some batches wait for no person any more."""

BLOCKED = select(batch.c.id, batch.c.blocked).where(*_is_blocked)
"""The batches that only a person can let go on, and why."""


class Pauses(Area):
    async def pause(self, batch_id: str, reason: str) -> bool:
        """Hold a batch: none of its jobs starts, those that run go on. False when it has ended or does not exist."""
        asked = {"batch_id": batch_id, "reason": clean(reason)}
        async with self._db.write() as connection:
            held = (await connection.execute(FIRST_HOLD, asked)).all()
            await announce_held(connection, held)
            return bool(held) or (await connection.execute(HOLD_BATCH, asked)).rowcount > 0

    async def resume(self, batch_id: str) -> bool:
        """Let a held batch go on. False when it has ended or does not exist."""
        asked = {"batch_id": batch_id}
        async with self._db.write() as connection:
            resumed = (await connection.execute(RESUME_HELD, asked)).all()
            await announce_resumed(connection, resumed)
            return bool(resumed) or (await connection.execute(RESUME_BATCH, asked)).first() is not None

    async def block(self, reasons: Mapping[str, str]) -> None:
        """Say of batches that only a person can let them go on, and why."""
        async with self._db.write() as connection:
            for batch_id, reason in sorted(reasons.items()):
                asked = {"batch_id": batch_id, "reason": clean(reason)}
                blocked = (await connection.execute(FIRST_BLOCK, asked)).all()
                await announce_held(connection, blocked)
                if not blocked:
                    await connection.execute(BLOCK_BATCH, asked)

    async def unblock(self, ids: Sequence[str]) -> None:
        """These batches wait for no person any more."""
        async with self._db.write() as connection:
            await announce_resumed(connection, (await connection.execute(UNBLOCK_BATCHES, {"ids": list(ids)})).all())

    async def blocked(self) -> dict[str, str]:
        """The batches that only a person can let go on, and why."""
        async with self._db.read() as connection:
            return {row.id: row.blocked for row in await connection.execute(BLOCKED)}
