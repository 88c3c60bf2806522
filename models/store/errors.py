"""Errors raised when the ledger cannot do what was requested. No message contains a password or a prompt.

StoreError
├── StoreOutage            transient, whatever the request; the same call may succeed later
│   ├── StoreUnavailable   no connection to the database, or it may not be used
│   │   └── StoreMisplaced the data folder or the address is invalid: a user's mistake
│   └── StoreBusy          the database cannot write now: locked, deadlocked, read-only, or its disk is full
│       └── StoreFull      the disk of an SQLite ledger has no room for the data
├── StoreConflict          the row already exists, or is not in a state that allows the change
├── StoreRefused           the database cannot store the data
└── StoreDefect            the database rejects a statement: our bug, or a modified schema
"""

from understudy.models.errors import NO_HEADERS, WRONG_USE, OutOfReach


class StoreError(OutOfReach):
    """The ledger could not do what was requested."""


class StoreOutage(StoreError):
    """Transient, and not caused by the request: the same call may succeed later."""


class StoreUnavailable(StoreOutage):
    """No connection to the database, or it may not be used."""


class StoreMisplaced(StoreUnavailable):
    """There cannot be a ledger at the configured location."""

    exit_code = WRONG_USE


class StoreBusy(StoreOutage):
    """The database cannot write now; nothing was changed."""


class StoreFull(StoreBusy):
    """The disk of an SQLite ledger has no room for the data; nothing was changed."""


class StoreConflict(StoreError):
    """The row already exists, or is not in a state that allows the change."""

    status = 409
    code = "conflict"
    headers = NO_HEADERS


class StoreRefused(StoreError):
    """The database cannot store the data: the same call always fails."""


class StoreDefect(StoreError):
    """The database rejects a statement: our bug, or a modified schema."""


def folder_reason(error: OSError) -> str:
    """Why a data folder cannot be used, given the error from creating it or opening a file in it."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in its place"
    return (error.strerror or "it cannot be written to").lower()
