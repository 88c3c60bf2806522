"""What the store raises when the ledger cannot do what was asked. None of the texts holds a password or a prompt.

StoreError
├── StoreUnavailable   no connection to the database
├── StoreBusy          the database cannot write now: locked, deadlocked, or its disk is full; try again later
└── StoreConflict      the row is there already, or is not in a state that allows the change
"""


class StoreError(Exception):
    """The ledger could not do what was asked."""


class StoreUnavailable(StoreError):
    """No connection to the database."""


class StoreBusy(StoreError):
    """The database cannot write now; nothing was changed, and the same call may succeed later."""


class StoreConflict(StoreError):
    """The row is there already, or is not in a state that allows the change."""
