"""The actor of command-line and Python calls, as recorded in the audit log."""

import os
import pwd
import socket
from functools import cache

from understudy.models.store.audit import COMMAND_LINE


def command_line() -> str:
    """`command line: ada@host`"""
    return f"{COMMAND_LINE}: {_who()}"


def python_program() -> str:
    """`python: ada@host`"""
    return f"python: {_who()}"


@cache
def _who() -> str:
    """The user according to the operating system, whatever the environment claims.

    For root via sudo, also the original user, as far as root lets it be known.
    """
    uid = os.getuid()
    name = _name(uid)
    behind = os.environ.get("SUDO_USER", "") if uid == 0 else ""
    by = f" (sudo by {behind})" if behind.isprintable() and 0 < len(behind) <= 64 and behind != name else ""
    return f"{name}@{socket.gethostname()}{by}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container, the uid may have no name
        return f"uid {uid}"
