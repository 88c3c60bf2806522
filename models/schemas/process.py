"""Keeps the process that judges schemas (`models.schemas.judge`), and speaks with it.

A request is `FRAME` (seconds of processor time for the answer, length of the schema, length of the answer + 1, or 0 for
no answer) and then both as JSON. A reply is `LENGTH` and then JSON; the judge says what it means.
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
"""For how long to wait for a reply, on a machine however busy: the processor time is what counts, this only ends a
process that stands still."""

NEEDED = ("PATH", "PYTHON", "LD_", "DYLD_")
"""Variables of the environment, by how they begin, that it is given: no secret is among them."""


class OutOfTime(Exception):
    """The judge was ended by its deadline."""


class Died(Exception):
    """The judge died of what it was asked, and so did the one after it."""


class NoJudge(OutOfReach):
    """This machine starts no process, or no thread, now. It may pass; nothing is known of what was asked."""

    def __init__(self) -> None:
        super().__init__("JSON schemas cannot be checked now, because no process can be started; try again later")


class SchemaProcess:
    """One judge, started when it is first asked and again when it has died. Threads are served as they come."""

    def __init__(self) -> None:
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="schema-process")  # a lock would serve them by chance
        self._process: subprocess.Popen[bytes] | None = None
        self._spent = threading.local()
        atexit.register(self.close)

    def ask(self, schema: bytes, answer: bytes | None, seconds: float) -> dict[str, Any]:
        """What the judge says of a schema and an answer (JSON). Raises OutOfTime, Died, NoJudge."""
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
        """Processor time that the judge has used for what this thread asked, as far as it answered."""
        return float(getattr(self._spent, "seconds", 0.0))

    def _ask(self, request: bytes) -> dict[str, Any]:
        was_fresh = self._process is None
        try:
            return self._exchange(request)
        except Died:
            if was_fresh:
                raise
        return self._exchange(request)  # it may have died of what others asked before

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
    """One request and its reply. Raises OutOfTime when they take longer than `WAIT_S`, BrokenPipeError when the process
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
    """That of this process; one that was forked has another."""
    return _judge_of(os.getpid())


@lru_cache(maxsize=1)
def _judge_of(_pid: int) -> SchemaProcess:
    return SchemaProcess()
