"""A process between us and the embedded Redis: it stops the server when we end, even by SIGKILL.

    python embedded_guard.py RUNTIME_FOLDER SERVER ARGUMENTS…

It uses only the standard library. Its standard input is a pipe from its parent, which closes when the parent ends, on
every platform. On Linux, the server also ends if this guard is killed.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
STOP_S = 10.0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    runtime, *command = sys.argv[1:]
    os.umask(0o077)  # inherited by the server for its files
    parent_gone = threading.Event()
    # the only thread so far: code between fork and exec is safe, and the kernel ties the signal to this thread
    tie = _die_with_parent if sys.platform == "linux" else None
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=tie)

    def follow_the_server() -> None:
        code = server.wait()
        if parent_gone.is_set():
            shutil.rmtree(runtime, ignore_errors=True)
        os._exit(code if code >= 0 else 128 - code)

    follower = threading.Thread(target=follow_the_server)
    follower.start()
    sys.stdin.buffer.read()
    parent_gone.set()
    server.terminate()
    follower.join(STOP_S)
    server.kill()
    follower.join()


if __name__ == "__main__":
    main()
