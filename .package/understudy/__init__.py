"""Understudy: a queue-driven batch worker for LLM completions.

    from understudy import Client

    with Client() as client:
        job = client.submit("Say hello in Latin.", model="openai/gpt-4o-mini")
        print(client.wait(job.id, timeout_s=60).text)

Everything exported by `understudy.producer.client` can be imported from here; it is loaded on first use.
`python -m understudy` runs the command `understudy`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.producer.client import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        if not name.startswith("_"):
            from understudy.producer import client

            if name in client.__all__:
                return getattr(client, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
