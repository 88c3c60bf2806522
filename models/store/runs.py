"""The batches of `run`: they go on while its process lives, and nobody else works them off once it has stopped."""

from collections.abc import Sequence

from sqlalchemy import bindparam, update

from models.store.ledger import Ledger
from models.store.sql import NOW, batch

_of_a_run = update(batch).where(batch.c.runs_until.is_not(None), batch.c.ended_at.is_(None))

KEEP_RUN = (
    update(batch)
    .where(batch.c.id.in_(bindparam("ids", expanding=True)), batch.c.ended_at.is_(None))
    .values(runs_until=NOW + bindparam("lease_s"))
)
"""The process of a run lives: the jobs of its batches may start for a while."""

STOP_RUN = _of_a_run.where(batch.c.id.in_(bindparam("ids", expanding=True))).values(runs_until=0.0)
"""A run stops, unless somebody has let its batches go on without it."""

STOP_RUNS = _of_a_run.values(runs_until=0.0)
"""All runs have stopped."""


class Runs(Ledger):
    async def keep_run(self, batches: Sequence[str], lease_s: float) -> None:
        """Let the jobs of a run's batches start for the next `lease_s` seconds; its process says so again and again."""
        async with self._db.write() as connection:
            await connection.execute(KEEP_RUN, {"ids": list(batches), "lease_s": lease_s})

    async def stop_run(self, batches: Sequence[str]) -> None:
        """No other job of a run's batches starts until the run is taken up again or somebody resumes them."""
        async with self._db.write() as connection:
            await connection.execute(STOP_RUN, {"ids": list(batches)})

    async def stop_runs(self) -> None:
        """Stop every run, for a start that knows that none can be alive (it holds the data folder's lock)."""
        async with self._db.write() as connection:
            await connection.execute(STOP_RUNS)
