"""A worker's sign of life for the command that keeps it: a byte a second, from a thread that does nothing else.

It needs neither the ledger nor the main loop, so that its absence says nothing about them: no code of this process gets
a turn (`producer/processes/hung_workers.py`).
"""

import faulthandler
import os
import signal
import threading
import time
from contextlib import suppress

EVERY_S = 1.0


def show_life(descriptor: int) -> None:
    """Write to a pipe from now on, for as long as this process lives and somebody reads.

    Who misses the sign asks with SIGUSR2 where this process is: it writes places in the code, no values.
    """
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    os.set_blocking(descriptor, False)
    threading.Thread(target=_write, args=(descriptor,), name="alive", daemon=True).start()


def show_well(descriptor: int) -> None:
    """Besides, for the health file: the loops of this worker run, and its lease does."""
    with suppress(OSError):
        os.write(descriptor, b"+")


def _write(descriptor: int) -> None:
    while True:
        try:
            os.write(descriptor, b".")
        except BlockingIOError:
            pass  # who reads has been stopped for a long time
        except OSError:
            return
        time.sleep(EVERY_S)
