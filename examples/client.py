"""The Python interface: one job and its answer, then a batch and its lines.

Needs a worker: in another terminal, in the same folder, `understudy worker`. Then

    OPENAI_API_KEY=… python examples/client.py openai/gpt-4o-mini anthropic/claude-haiku-4-5
"""

import asyncio
import sys

from producer.client import open_client

DESKS = ("walnut", "oak", "bamboo", "steel")


async def main(model: str, fallbacks: list[str]) -> None:
    async with open_client() as client:
        job_id = await client.enqueue("Write a haiku about queues.", model=model, fallbacks=fallbacks)
        await client.wait(job_id, timeout_s=120)
        job = await client.fetch(job_id)
        print(job.state, job.text or job.error, f"${job.cost_usd:.6f}", sep="\n")

        requests = ({"custom_id": desk, "prompt": f"Name a {desk} desk. Two words."} for desk in DESKS)
        batch_id = await client.enqueue_many(requests, model=model, fallbacks=fallbacks)
        await client.wait(batch_id, timeout_s=120)
        async for line in client.results(batch_id):  # also while it runs
            body = line["response"]["body"] if line["response"] else line["error"]
            print(line["custom_id"], body["choices"][0]["message"]["content"] if "choices" in body else body)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name a model, such as openai/gpt-4o-mini, and models to fall back on")
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
