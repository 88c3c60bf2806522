"""Chat completions against real processes: the OpenAI SDK, and a client that is killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import openai
import pytest
from stage_hands import Mock, Scene, alone_and_on_servers, kill, until

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

SOON_S = 3.0
ASK = """
import sys, httpx
body = {"model": "alpha/m", "stream": sys.argv[2] == "stream", "messages": [{"role": "user", "content": "Hello."}]}
httpx.post(sys.argv[1] + "/v1/chat/completions", json=body, timeout=100)
"""


@alone_and_on_servers
def test_the_sdk_is_answered_whole_and_in_a_stream(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers(""))
    _, url = scene.serve()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with client:
        whole = client.chat.completions.create(model="alpha/m", messages=[{"role": "user", "content": "Hello."}])
        stream = client.chat.completions.create(
            model="alpha/m", messages=[{"role": "user", "content": "Hello."}], stream=True
        )
        with stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert whole.choices[0].message.content
    assert "".join(pieces) == whole.choices[0].message.content


@pytest.mark.slow
@pytest.mark.parametrize("way", ["whole", "stream"])
@alone_and_on_servers
def test_the_call_of_a_client_that_is_killed_is_stopped(
    scene: Scene, providers: Callable[[str], Mock], way: str
) -> None:
    mock = providers("[answers]\nlatency_s = 60\n")
    scene.configure(mock)
    _, url = scene.serve()
    client = subprocess.Popen([sys.executable, "-c", ASK, url, way], env=dict(os.environ))
    until(lambda: mock.in_flight() == 1, "the call is in flight")
    kill(client.pid)
    client.wait()
    began = time.monotonic()
    until(lambda: mock.in_flight() == 0, "the call is stopped")
    assert time.monotonic() - began < SOON_S
    until(lambda: scene.ledger.states()["cancelled"] == 1, "the job is cancelled")
