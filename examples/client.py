"""Submit work from Python and read what became of it.

Needs a provider and a worker. To try it without keys, in an empty folder:

    understudy mock &
    printf '[providers.lead]\nkind = "openai"\nbase_url = "http://127.0.0.1:8090/lead/v1"\n' > understudy.toml
    understudy worker &
    python client.py lead/any-model
"""

import asyncio
import sys

from models.state import JobState
from producer.client import JobResult, open_client

WAIT_S = 60.0


async def main(model: str) -> None:
    async with open_client() as client:
        job_id = await client.enqueue("Write a haiku about queues.", model=model)
        result = await client.wait(job_id, WAIT_S)
        assert isinstance(result, JobResult)
        print(f"{result.state}: {result.text or result.error}")

        towns = ("Ghent", "Graz", "Porto")
        requests = [{"custom_id": town, "prompt": f"Name a dish from {town}."} for town in towns]
        batch_id = await client.enqueue_many(requests, model=model)
        await client.wait(batch_id, WAIT_S)
        async for line in client.results(batch_id):
            answer = line["response"]["body"]["choices"][0]["message"]["content"] if line["response"] else line["error"]
            print(f"{line['custom_id']}: {answer}")
        counts = (await client.fetch_batch(batch_id)).counts
        print(f"{counts[JobState.SUCCEEDED]} of {len(towns)} succeeded")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
