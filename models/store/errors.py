"""What the store raises when the ledger cannot do what was asked. None of the texts holds a password or a prompt.

StoreError
├── StoreOutage            it may pass, whatever was asked; the same call may succeed later
│   ├── StoreUnavailable   no connection to the database, or it may not be used
│   │   └── StoreMisplaced the data folder cannot be one, or the address cannot be read: a person's mistake
│   └── StoreBusy          the database cannot write now: locked, deadlocked, read-only, or its disk is full
│       └── StoreFull      the disk of an SQLite ledger has no room for it
├── StoreConflict          the row is there already, or is not in a state that allows the change
├── StoreRefused           the database cannot hold what it was given
└── StoreDefect            a statement that the database does not understand: a mistake of ours, or a changed schema
"""

from understudy.models.errors import OutOfReach, WrongUse


class StoreError(OutOfReach):
    """The ledger could not do what was asked."""


class StoreOutage(StoreError):
    """It may pass, and says nothing about what was asked: the same call may succeed later."""


class StoreUnavailable(StoreOutage):
    """No connection to the database, or it may not be used."""


class StoreMisplaced(StoreUnavailable, WrongUse):
    """No ledger can be where it was said to be."""


class StoreBusy(StoreOutage):
    """The database cannot write now; nothing was changed."""


class StoreFull(StoreBusy):
    """The disk of an SQLite ledger has no room for what was given; nothing was changed."""


class StoreConflict(StoreError):
    """The row is there already, or is not in a state that allows the change."""


class StoreRefused(StoreError):
    """The database cannot hold what it was given: the same call fails again, whenever it is made."""


class StoreDefect(StoreError):
    """A statement that the database does not understand: a mistake of ours, or a schema that somebody changed."""


def folder_reason(error: OSError) -> str:
    """Why a data folder cannot be used, from what was raised when it was made or a file in it was opened."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is in its place"
    return (error.strerror or "it cannot be written to").lower()
