"""A worker's sign of life for its parent process: a byte a second, from a thread that does nothing else.

It needs neither the ledger nor the main loop, so its absence says nothing about them: no code of this process is
running (`producer/processes/supervision.py`).
"""

import faulthandler
import os
import signal
import threading
import time
from contextlib import suppress

EVERY_S = 1.0


def show_life(descriptor: int) -> None:
    """Write to a pipe from now on, while this process lives and the pipe is read.

    If the sign is missing, SIGUSR2 makes this process write where it is: code locations, no values.
    """
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    os.set_blocking(descriptor, False)
    threading.Thread(target=_write, args=(descriptor,), name="alive", daemon=True).start()


def show_well(descriptor: int) -> None:
    """In addition, for the health file: the loops of this worker run, and its lease is live."""
    with suppress(OSError):
        os.write(descriptor, b"+")


def _write(descriptor: int) -> None:
    while True:
        try:
            os.write(descriptor, b".")
        except BlockingIOError:
            pass  # the reader has been suspended for a long time
        except OSError:
            return
        time.sleep(EVERY_S)
