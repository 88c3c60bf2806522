"""Submit work from Python and read the results.

Needs a provider and a worker. To try it without API keys, in an empty folder:

    understudy mock &
    printf '[providers.lead]\nkind = "openai"\nbase_url = "http://127.0.0.1:8090/lead/v1"\n' > understudy.toml
    understudy worker &
    python client.py lead/any-model
"""

import sys

from understudy import Client

WAIT_S = 60.0


def main(model: str) -> None:
    with Client() as client:
        job = client.submit("Write a haiku about queues.", model=model, metadata={"for": "the wall"})
        result = client.wait(job.id, WAIT_S)
        print(f"{result.state}: {result.text if result.ok else result.error}")

        towns = ("Ghent", "Graz", "Porto")
        requests = [{"custom_id": town, "prompt": f"Name a dish from {town}."} for town in towns]
        batch = client.submit_batch(requests, model=model)
        batch = client.wait_batch(batch.id, WAIT_S)
        for result in client.results(batch.id):
            print(f"{result.custom_id}: {result.text if result.ok else result.error}")
        print(f"{batch.succeeded} of {batch.total} succeeded")


if __name__ == "__main__":
    main(sys.argv[1])
