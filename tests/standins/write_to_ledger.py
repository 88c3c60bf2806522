"""A process that writes single jobs to a SQLite ledger as fast as it may: `write_to_ledger.py FOLDER COUNT`.

Prints one line when it is ready, waits for one, and prints the time of each commit.
"""

import asyncio
import sys
import time
from pathlib import Path

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.store import open_store


async def main(folder: Path, count: int) -> None:
    chain = Chain(steps=(Step(provider="lead", model="large"),))
    async with open_store(None, folder) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for number in range(count):
            await store.intake.accept_jobs(
                "default", [NewJob(new_id("job"), "{}", chain, str(number), expires_at=time.time() + 60)]
            )
            sys.stdout.write(f"{time.time()}\n")


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
