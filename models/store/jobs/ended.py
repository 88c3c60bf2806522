"""Which of the awaited jobs and batches have ended, in a single query."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, bindparam, select, union_all

from understudy.models.store.ledger import Area
from understudy.models.store.sql import batch, job

ASKED_AT_ONCE = 1_000

_ids: BindParameter[Any] = bindparam("ids", expanding=True)

ENDED_AMONG = union_all(
    select(job.c.id).where(job.c.id.in_(_ids), job.c.ended_at.is_not(None)),
    select(batch.c.id).where(batch.c.id.in_(_ids), batch.c.ended_at.is_not(None)),
)
"""The given jobs and batches that have ended."""


class Ended(Area):
    async def ended_among(self, ids: Sequence[str]) -> set[str]:
        """The given jobs and batches that have ended."""
        ended: set[str] = set()
        async with self._db.read() as connection:
            for start in range(0, len(ids), ASKED_AT_ONCE):
                asked = {"ids": list(ids[start : start + ASKED_AT_ONCE])}
                ended.update((await connection.execute(ENDED_AMONG, asked)).scalars())
        return ended
