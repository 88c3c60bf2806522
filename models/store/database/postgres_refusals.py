"""Readable reasons why PostgreSQL cannot be used, from the messages of libpq or the server.

Messages are matched by words, because libpq has no error codes for failed connections. Servers may use other languages:
unmatched messages are shown as they are.
"""

import re

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
