"""Manages the process that evaluates schemas (`models.schemas.judge`) and talks to it.

A request is `FRAME` (seconds of processor time for the answer, length of the schema, length of the answer + 1, or 0 for
no answer), followed by both as JSON. A reply is `LENGTH` followed by JSON; see the judge for its meaning.
"""

import atexit
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import orjson

from understudy.models.errors import OutOfReach

FRAME = struct.Struct("!dII")
LENGTH = struct.Struct("!I")

WAIT_S = 30.0
"""Maximum seconds to wait for a reply, however busy the machine: processor time is the real limit, this only catches
a process that hangs."""

NEEDED = ("PATH", "PYTHON", "LD_", "DYLD_")
"""Prefixes of the environment variables passed on: none of them is a secret."""


class OutOfTime(Exception):
    """The judge hit its deadline and was killed."""


class Died(Exception):
    """The judge died of the request, and so did its replacement."""


class NoJudge(OutOfReach):
    """This machine cannot start a process or thread right now. Transient; says nothing about the schema or answer."""

    def __init__(self) -> None:
        super().__init__("JSON schemas cannot be checked now, because no process can be started; try again later")


class SchemaProcess:
    """One judge, started on first use and again after it died. Threads are served in order of arrival."""

    def __init__(self) -> None:
        self._turns = ThreadPoolExecutor(
            1, thread_name_prefix="schema-process"
        )  # a lock would serve them in arbitrary order
        self._process: subprocess.Popen[bytes] | None = None
        self._spent = threading.local()
        atexit.register(self.close)

    def ask(self, schema: bytes, answer: bytes | None, seconds: float) -> dict[str, Any]:
        """The judge's reply for a schema and an answer (JSON). Raises OutOfTime, Died, NoJudge."""
        length = 0 if answer is None else len(answer) + 1
        request = FRAME.pack(seconds, len(schema), length) + schema + (answer or b"")
        try:
            turn = self._turns.submit(self._ask, request)
        except RuntimeError:  # its thread did not start
            raise NoJudge from None
        reply = turn.result()
        self._spent.seconds = self.spent_s() + float(reply.pop("took_s"))
        return reply

    def spent_s(self) -> float:
        """Processor time that the judge spent on requests of this thread, as far as it replied."""
        return float(getattr(self._spent, "seconds", 0.0))

    def _ask(self, request: bytes) -> dict[str, Any]:
        was_fresh = self._process is None
        try:
            return self._exchange(request)
        except Died:
            if was_fresh:
                raise
        return self._exchange(request)  # it may have died of an earlier request

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def _exchange(self, request: bytes) -> dict[str, Any]:
        process = self._process = self._process or _start()
        talk = _Talk(process)
        done = False
        try:
            talk.send(request)
            (length,) = LENGTH.unpack(talk.receive(LENGTH.size))
            reply: dict[str, Any] = orjson.loads(talk.receive(length))
            done = True
            return reply
        except BrokenPipeError:
            if process.wait(WAIT_S) == -signal.SIGPROF:
                raise OutOfTime from None
            raise Died from None
        finally:
            if not done:
                self.close()


class _Talk:
    """One request and its reply. Raises OutOfTime if they take longer than `WAIT_S`, BrokenPipeError if the process
    has ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._until = time.monotonic() + WAIT_S

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._in, select.POLLOUT)
            rest = rest[os.write(self._in, rest) :]

    def receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            self._wait(self._out, select.POLLIN)
            came = os.read(self._out, length - len(data))
            if not came:
                raise BrokenPipeError
            data += came
        return data

    def _wait(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(self._until - time.monotonic(), 0.0) * 1000):
            raise OutOfTime


def _start() -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name.startswith(NEEDED)}
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "understudy.models.schemas.judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
    except (OSError, MemoryError):
        raise NoJudge from None
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def the_judge() -> SchemaProcess:
    """The judge of this process; a forked process has its own."""
    return _judge_of(os.getpid())


@lru_cache(maxsize=1)
def _judge_of(_pid: int) -> SchemaProcess:
    return SchemaProcess()
