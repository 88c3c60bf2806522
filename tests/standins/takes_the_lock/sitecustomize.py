"""For the processes of a test: a job whose prompt names a way to hold the interpreter's lock holds it forever."""

import ctypes
import re
import sys
import threading
import time


def computing() -> None:
    re.match("(a+)+$", "a" * 100 + "!")


def asleep() -> None:
    """Wait for a system lock that is never released; no signal wakes it."""
    mutex = ctypes.create_string_buffer(64)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)


WAYS = {b"TAKE THE LOCK COMPUTING": computing, b"TAKE THE LOCK ASLEEP": asleep}


def lay() -> None:
    while not hasattr(module := sys.modules.get("understudy.worker.job.run"), "JobRun"):
        time.sleep(0.001)
    run = module.JobRun.run

    async def run_or_hang(self):
        for words, take in WAYS.items():
            if words.decode() in str(self.job.body):
                take()
        return await run(self)

    module.JobRun.run = run_or_hang


if "understudy.worker" in sys.orig_argv:
    threading.Thread(target=lay, daemon=True).start()
