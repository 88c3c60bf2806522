"""`python -m understudy.worker.mock` as a process: it says where it listens, and stops when it should."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

DEADLINE_S = 15.0


@asynccontextmanager
async def mock_process(*options: str) -> AsyncIterator[Process]:
    command = (sys.executable, "-P", "-m", "understudy.worker.mock", *options)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_line(process: Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        return (await process.stderr.readline()).decode().strip()


async def exit_code(process: Process) -> int:
    async with asyncio.timeout(DEADLINE_S):
        return await process.wait()


async def test_it_says_where_it_listens_answers_there_and_stops_on_a_signal(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    async with mock_process("--port", "0", "--ready-file", str(ready)) as process:
        line = await first_line(process)
        url = ready.read_text()
        assert line == f"listening on {url}"
        async with httpx.AsyncClient() as http:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            assert (await http.post(f"{url}/alpha/v1/chat/completions", json=body)).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert await exit_code(process) == 0


async def test_it_ends_with_its_parent_when_asked_to() -> None:
    async with mock_process("--port", "0", "--exit-with-parent") as process:
        assert (await first_line(process)).startswith("listening on http://127.0.0.1:")
        assert process.stdin is not None
        process.stdin.close()
        assert await exit_code(process) == 0


async def test_a_wrong_script_ends_it_with_code_2_and_one_sentence(tmp_path: Path) -> None:
    script = tmp_path / "wrong.toml"
    script.write_text('[[rules]]\nfail = "server"\nprobabilty = 0.5\n')
    async with mock_process("--config", str(script)) as process:
        assert await first_line(process) == (
            f"{script}, line 3: rules[0].probabilty is not a setting; did you mean 'probability'?"
        )
        assert await exit_code(process) == 2


async def test_a_port_that_is_taken_ends_it_with_code_2_and_one_sentence() -> None:
    async with mock_process("--port", "0") as first:
        port = (await first_line(first)).rpartition(":")[2]
        async with mock_process("--port", port) as second:
            assert (await first_line(second)).startswith(f"Cannot listen on 127.0.0.1:{port}: ")
            assert await exit_code(second) == 2
