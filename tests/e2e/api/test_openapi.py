"""The server does what the OpenAPI document says, whatever it is sent."""

import subprocess
from collections.abc import Callable

import pytest
from stage_hands import BIN, Mock, Scene, alone_and_on_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IMPATIENT = """
[api]
hold_s = 5

[chains.default]
steps = ["alpha/m"]
"""

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
SUBMITTING = "^/v1/(jobs|batches|chat|embeddings)"
KEY_OF_THE_RUN = "/v1/keys/{key_id}"
"""Left out, because one of its requests would revoke the key that all the others need."""


@pytest.mark.parametrize("routes", [["--include-path-regex", SUBMITTING], ["--exclude-path-regex", SUBMITTING]])
@alone_and_on_servers
def test_no_request_brings_a_server_error_or_an_undocumented_answer(
    scene: Scene, providers: Callable[[str], Mock], routes: list[str]
) -> None:
    scene.configure(providers(""), more=IMPATIENT)
    process, url = scene.serve()
    made = [BIN / "understudy", "keys", "create", "--name", "test", "--scope", "admin"]
    key = subprocess.run(made, cwd=scene.folder, env=scene.full_environment, capture_output=True, text=True).stdout
    command = [BIN / "schemathesis", "run", f"{url}/openapi.json", "--checks", CHECKS, "--max-examples", "40"]
    command += ["-H", f"Authorization: Bearer {key.strip()}", "--exclude-path", KEY_OF_THE_RUN, *routes]
    command += ["--seed", "1", "--generation-database", "none", "--no-color", "--request-timeout", "10"]
    done = subprocess.run(command, cwd=scene.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Authentication failed" not in done.stdout, done.stdout[-4000:]
    assert "Traceback" not in process.said, process.said
