"""Translates database errors. Any error not caused by the statement itself counts as an outage, which may pass.

PostgreSQL's messages are matched by words, because libpq has no error codes for failed connections. Servers may use
other languages: unmatched messages are shown as they are.
"""

import re
import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from understudy.models.store.errors import (
    StoreBusy,
    StoreDefect,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

SQLITE_BUSY = frozenset([sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT])

SQLITE_FULL = sqlite3.SQLITE_FULL

SQLITE_REFUSED = frozenset([sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE])

SQLITE_DEFECT = sqlite3.SQLITE_ERROR

SQLITE_UNUSABLE = {
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check the path and its permissions",
    sqlite3.SQLITE_READONLY: "cannot be written to; check its permissions and those of its folder",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database; move it away, or name another folder with --data",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup, or name another folder with --data",
}


# SQLSTATEs or their classes (prefixes).
POSTGRESQL_READ_ONLY = "25006"
POSTGRESQL_FORBIDDEN = "42501"

POSTGRESQL_FULL = ("53100", "53200")  # disk, memory

POSTGRESQL_BUSY = ("0A", "25", "40", "53400", "55", "57014")  # state of a transaction, conflicts, locks, timeouts

POSTGRESQL_REFUSED = ("21", "22", "44", "54")  # cardinality, data, a view's check, a limit such as a row's size

POSTGRESQL_DEFECT = ("0Z", "2F", "34", "42", "P0")  # syntax, unknown names, an error raised by a user-defined trigger

POSTGRESQL_AWAY = ("08", "28", "3D", "53300", "57P")  # connection, login, no such database, slots, shutdown


def meaning_of(error: DBAPIError, place: str, password: str | None) -> StoreError:
    """The error's own text is only repeated if it is about the connection: otherwise it may quote data.

    `place` is the database, for people. `password` is removed.
    """
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return _of_sqlite(code & 0xFF, place)
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is None and not isinstance(error, OperationalError | InterfaceError | InternalError):
        return StoreRefused(f"the driver cannot write this data to {place} ({type(error.orig).__name__})")
    if sqlstate is None or error.connection_invalidated or sqlstate.startswith(POSTGRESQL_AWAY):
        return StoreUnavailable(f"the database at {place} {why_refused(str(error.orig), password)}")
    return _of_postgresql(sqlstate, error, place)


def _of_postgresql(sqlstate: str, error: DBAPIError, place: str) -> StoreError:
    if sqlstate == POSTGRESQL_READ_ONLY:
        return StoreBusy(
            f"the database at {place} is read-only at the moment: it is a replica, or a failover is under way; "
            "name the primary in DATABASE_URL"
        )
    if sqlstate == POSTGRESQL_FORBIDDEN:
        return StoreUnavailable(f"the database at {place} denies its user permission: {_primary(error)}; grant it")
    if sqlstate.startswith(POSTGRESQL_FULL):
        return StoreBusy(f"the database at {place} is out of space; free some disk space and try again")
    if sqlstate.startswith(POSTGRESQL_BUSY):
        return StoreBusy(f"the database at {place} is busy with a conflicting change; try again")
    if sqlstate.startswith(POSTGRESQL_REFUSED):
        return StoreRefused(f"the database at {place} cannot store this data (SQLSTATE {sqlstate})")
    if sqlstate.startswith(POSTGRESQL_DEFECT):
        return StoreDefect(
            f"the database at {place} does not match this version (SQLSTATE {sqlstate}); run understudy migrate"
        )
    return StoreUnavailable(f"the database at {place} cannot be used at the moment (SQLSTATE {sqlstate}); see its log")


def _primary(error: DBAPIError) -> str:
    """What the server says was forbidden; names tables and schemas, never values."""
    diagnosis = getattr(error.orig, "diag", None)
    return str(getattr(diagnosis, "message_primary", None) or "permission denied")


def _of_sqlite(code: int, place: str) -> StoreError:
    if code in SQLITE_BUSY:
        return StoreBusy(f"the database {place} is locked by another program; close it or try again")
    if code == SQLITE_FULL:
        return StoreFull(f"the disk with {place} is full; free some space and try again")
    if code in SQLITE_REFUSED:
        return StoreRefused(f"the database {place} cannot store this data (SQLite code {code})")
    if code == SQLITE_DEFECT:
        return StoreDefect(f"the database {place} does not match this version's schema; were its tables changed?")
    reason = SQLITE_UNUSABLE.get(code, f"cannot be used (SQLite code {code}); check its disk")
    return StoreUnavailable(f"the database {place} {reason}")


NO_USER = "rejects the user or the password; correct them in DATABASE_URL"
NO_ROOM = "has no connections left (max_connections); close some, raise the limit, or put a pooler in front"
NO_HOST = "cannot be reached: its host name is not known; correct DATABASE_URL"
NO_WAY = "cannot be reached: there is no route to its host; correct DATABASE_URL"
NO_ANSWER = "cannot be reached: it does not answer in time; check that it is up and DATABASE_URL is right"
NOT_THIS = "does not speak PostgreSQL; correct the host and the port in DATABASE_URL"

REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("password authentication failed",), NO_USER),
    (("no password supplied",), "requires a password; add it to DATABASE_URL"),
    (("scram",), NO_USER),
    (("role", "does not exist"), "has no such user; create the role, or correct DATABASE_URL"),
    (("database", "does not exist"), "does not exist; create it (createdb), or correct DATABASE_URL"),
    (("no such database",), "does not exist; create it, or correct DATABASE_URL"),
    (
        ("no pg_hba.conf entry", "no encryption"),
        "does not admit this user from here without TLS (pg_hba.conf); add ?sslmode=require to DATABASE_URL",
    ),
    (("no pg_hba.conf entry",), "does not admit this user from here; allow it in pg_hba.conf"),
    (("permission denied for database",), "does not admit this user; grant CONNECT on it"),
    (("does not support ssl",), "offers no TLS, which sslmode requires; enable it there, or remove sslmode"),
    (("root certificate file", "does not exist"), "is to be verified by its certificate; name its CA with sslrootcert"),
    (
        ("certificate verify failed",),
        "has a certificate that is not trusted; name its CA with sslrootcert in DATABASE_URL",
    ),
    (("server certificate for",), "has a certificate for another host name; correct the host in DATABASE_URL"),
    (("certificate",), "cannot be used with these TLS certificates; see sslcert, sslkey and sslrootcert"),
    (("response to ssl negotiation",), NOT_THIS),
    (("expected authentication request",), NOT_THIS),
    (("too many clients",), NO_ROOM),
    (("too many connections",), NO_ROOM),
    (("connection slots are reserved",), NO_ROOM),
    (("starting up",), "is starting up; try again in a moment"),
    (("shutting down",), "cannot be reached: it is shutting down; start it again"),
    (("recovery",), "is in recovery; try again in a moment"),
    (("resolve host",), NO_HOST),
    (("translate host name",), NO_HOST),
    (("connection refused",), "cannot be reached: nothing listens there; start PostgreSQL, or correct DATABASE_URL"),
    (("no such file or directory",), "cannot be reached: it has no socket there; start it, or correct DATABASE_URL"),
    (("timeout expired",), NO_ANSWER),
    (("timed out",), NO_ANSWER),
    (("no route to host",), NO_WAY),
    (("network is unreachable",), NO_WAY),
    (("closed the connection",), "cannot be reached: it closed the connection; see its log"),
)
"""Lower-case words that must all be present, and the text that follows the database's name. The first match counts."""

MOST_WORDS = 200

PREAMBLE = re.compile(r"^(?:.*failed: )?(?:[A-Z]+:\s+)?", re.DOTALL)
"""The prefixes of libpq before the server's message, and of the server before the reason."""


def why_refused(said: str, password: str | None) -> str:
    """The rest of a sentence that begins with the name of the database."""
    lowered = said.lower()
    for words, reason in REASONS:
        if all(word in lowered for word in words):
            return reason
    first = PREAMBLE.sub("", said, count=1).strip().partition("\n")[0][:MOST_WORDS]
    if password:
        first = first.replace(password, "***")
    return f"cannot be reached: {first or 'no reason was given'}; check that it is up and DATABASE_URL is right"
