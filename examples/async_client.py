"""The async client: many jobs at once, each handled as soon as it has ended. See `client.py` for how to run it."""

import asyncio
import sys

from understudy import AsyncClient, NoAnswer, WaitTimeout

WAIT_S = 60.0


async def ask(client: AsyncClient, town: str, model: str) -> str:
    """The answer, or why there is none. Submitting again with the same key returns the same job, so it is paid for
    once."""
    job = await client.submit(f"Name a dish from {town}.", model=model, idempotency_key=f"dish-{town}")
    try:
        return (await client.wait(job.id, WAIT_S)).text
    except NoAnswer as error:
        return f"({error})"
    except WaitTimeout:
        return f"(still running: {(await client.get(job.id)).wait_reason or 'waiting for its turn'})"


async def main(model: str) -> None:
    async with AsyncClient() as client:
        towns = ("Ghent", "Graz", "Porto")
        answers = await asyncio.gather(*(ask(client, town, model) for town in towns))
        for town, answer in zip(towns, answers, strict=True):
            print(f"{town}: {answer}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
