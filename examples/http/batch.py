"""A batch through the official OpenAI SDK; only the base URL is changed.

pip install openai
python batch.py prompts.jsonl default
"""

import json
import os
import sys
import time
from pathlib import Path

from openai import OpenAI

SERVER = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8080")
DONE = {"completed", "failed", "expired", "cancelled"}


def main(source: str, model: str) -> None:
    client = OpenAI(base_url=f"{SERVER}/v1", api_key="not needed on this machine until a key is created")
    prompts = [json.loads(line)["prompt"] for line in Path(source).read_text().splitlines()]
    lines = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": prompt}]},
        }
        for number, prompt in enumerate(prompts, start=1)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("prompts.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"from": source}
    )
    while batch.status not in DONE:
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
        if batch.errors is not None and batch.errors.data and batch.status == "in_progress":
            # All lines fail alike, a key is rejected, or a budget is spent: nothing continues until a person acts.
            sys.exit(f"{batch.id} waits: {batch.errors.data[0].message}")
    print(batch.id, batch.status, batch.request_counts, batch.errors or "", file=sys.stderr)
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        sys.stdout.write(client.files.content(file_id).text)


if __name__ == "__main__":
    main(*sys.argv[1:])
