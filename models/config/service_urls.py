"""URLs of PostgreSQL and Redis as people and other programs write them: validated and made canonical.

    BadAddress    it cannot be used as written; the end of a sentence that begins with the setting's name

Options of other programs are translated, or dropped where nothing depends on them. No message repeats a part of a URL:
if a password has unescaped characters, any part may belong to the password.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qsl, urlencode

POSTGRESQL_FORM = "write postgresql://user:password@host:5432/database"
REDIS_FORM = "write it as redis://host:6379/0"

LIBPQ_OPTIONS = frozenset(
    """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation
    gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
    load_balance_hosts max_protocol_version min_protocol_version options passfile password port replication
    require_auth requirepeer service ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode
    sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni
    target_session_attrs tcp_user_timeout user
    """.split()
)
HIGHEST_PORT = 65_535
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable", "no-verify": "require"}
"""What drivers of other languages write for libpq's modes."""

NEEDLESS = frozenset(
    """
    pgbouncer supa uselibpqcompat statement_cache_size prepared_statement_cache_size prepared_statements
    prepareThreshold prepare_threshold binary_parameters
    """.split()
)
"""Options of other programs for poolers and prepared statements: we prepare none, so every pooler works."""

REDIS_OPTIONS = frozenset(
    """
    db username password client_name protocol max_connections health_check_interval retry_on_timeout socket_timeout
    socket_connect_timeout socket_keepalive socket_read_size
    """.split()
)
REDIS_TLS_OPTIONS = frozenset(
    """
    ssl_ca_certs ssl_ca_data ssl_ca_path ssl_cert_reqs ssl_certfile ssl_check_hostname ssl_ciphers ssl_keyfile
    ssl_password
    """.split()
)
NUMBERS = frozenset(
    "db protocol max_connections health_check_interval socket_timeout socket_connect_timeout socket_read_size".split()
)
CERT_REQS = ("none", "optional", "required")
REDIS_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}

OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")


class BadAddress(ValueError):
    """A URL that cannot be used. The end of a sentence, without any part of the URL."""


def postgresql_url(address: str) -> str:
    """Convert a PostgreSQL URL, whichever program it was written for, to the form of libpq. Raises BadAddress."""
    scheme, separator, rest = address.partition("://")
    kind, _, _driver = scheme.partition("+")
    if not separator or ":" in scheme:
        raise BadAddress(_of_another_kind(address))
    if kind == "sqlite":
        raise BadAddress(SQLITE)
    if kind not in ("postgres", "postgresql"):
        raise BadAddress(f"begins with {_shown(scheme, 'a word')}://; only postgresql:// is supported")
    place, options = _taken_apart(rest, LIBPQ_OPTIONS)
    place, hosts = _without_hosts(place)
    return _put_together("postgresql", place, [*(("host", each) for each in hosts), *_libpq_options(options)])


def _without_hosts(place: str) -> tuple[str, list[str]]:
    """Several hosts become options, as SQLAlchemy expects: the first that answers is used."""
    authority, slash, database = place.partition("/")
    secret, at, hosts = authority.rpartition("@")
    if "," not in hosts:
        return place, []
    return secret + at + slash + database, hosts.split(",")


SQLITE = "names SQLite, which needs no URL: unset it to keep the ledger in the data folder (--data)"


def _of_another_kind(address: str) -> str:
    if address.startswith("jdbc:"):
        return f"is a JDBC URL; {POSTGRESQL_FORM}"
    if address.startswith("sqlite:"):
        return SQLITE
    return f"cannot be parsed; {POSTGRESQL_FORM}"


def _libpq_options(options: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    taken = []
    for name, value in options:
        if name in NEEDLESS or (name == "schema" and value == "public"):
            continue
        if name == "schema":
            raise BadAddress("has the option 'schema'; use ?options=-csearch_path%3DNAME instead")
        if name == "ssl" or name == "sslmode":
            name, value = "sslmode", SSL_WORDS.get(value.lower(), value)
            if value not in SSL_MODES:
                raise BadAddress(f"has an sslmode that is not one of {', '.join(SSL_MODES)}")
        if name not in LIBPQ_OPTIONS:
            raise BadAddress(f"has {_shown(name)}, which PostgreSQL does not know; remove it")
        taken.append((name, value))
    return taken


def redis_url(address: str) -> str:
    """Convert a Redis URL to the form of redis-py. Raises BadAddress."""
    scheme, separator, rest = address.partition("://")
    if scheme in ("unix", "redis+socket") and separator:
        return f"unix://{rest}"
    if scheme not in REDIS_SCHEMES or not rest:
        raise BadAddress(f"is not a Redis URL; {REDIS_FORM}")
    known = REDIS_OPTIONS | REDIS_TLS_OPTIONS
    place, options = _taken_apart(_with_escaped_secret(rest), known)
    if not re.fullmatch(r"[^/]*(/\d*)?", place):
        raise BadAddress("does not end in a database number; write redis://host:6379/0")
    return _put_together(REDIS_SCHEMES[scheme], place, _redis_options(options, tls=REDIS_SCHEMES[scheme] == "rediss"))


def _redis_options(options: Iterable[tuple[str, str]], *, tls: bool) -> list[tuple[str, str]]:
    taken = []
    for name, value in options:
        if name in REDIS_TLS_OPTIONS or name in ("ssl", "tls"):
            if not tls:
                raise BadAddress(f"has {_shown(name)}, but TLS needs rediss:// instead of redis://")
            if name in ("ssl", "tls"):
                continue
        elif name not in REDIS_OPTIONS:
            raise BadAddress(f"has {_shown(name)}, which is unknown; remove it")
        if name == "ssl_cert_reqs":
            value = value.lower().removeprefix("cert_")
            if value not in CERT_REQS:
                raise BadAddress(f"has an ssl_cert_reqs that is not one of {', '.join(CERT_REQS)}")
        if name in NUMBERS and not re.fullmatch(r"\d+(\.\d+)?", value):
            raise BadAddress(f"has {_shown(name)} with a value that is not a number")
        taken.append((name, value))
    return taken


def _taken_apart(rest: str, known: frozenset[str]) -> tuple[str, list[tuple[str, str]]]:
    """Split into the part before the options and the options. Raises BadAddress if a password was not escaped."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    place, _, query = rest.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    host = authority.rpartition("@")[2]
    port = re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?", host)
    beyond = rest[len(authority) :]
    if authority.count("@") > 1 or ("@" in beyond and not _is_in_values(beyond, options, known)):
        raise BadAddress(UNESCAPED)
    if "," not in host and (port is None or int(port[1] or 0) > HIGHEST_PORT):
        raise BadAddress("has a port that is not a number up to 65535; write ':' in a user or password as %3A")
    return place, options


def _with_escaped_secret(rest: str) -> str:
    """Redis clients treat everything before the last @ of the authority as user and password, and may mistake
    brackets in it for those of an IPv6 address."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    secret, at, host = authority.rpartition("@")
    secret = secret.replace("@", "%40").replace("[", "%5B").replace("]", "%5D")
    return secret + at + host + rest[len(authority) :]


UNESCAPED = (
    "cannot be parsed: a password has a character that must be escaped; write @ as %40, / as %2F, # as %23, ? as %3F "
    "and : as %3A"
)


def _is_in_values(beyond: str, options: Iterable[tuple[str, str]], known: frozenset[str]) -> bool:
    """Whether an '@' behind the host can only belong to the value of an option."""
    return "@" not in beyond.partition("?")[0] and all(name in known for name, value in options if "@" in name + value)


def _put_together(scheme: str, place: str, options: list[tuple[str, str]]) -> str:
    return f"{scheme}://{place}" + (f"?{urlencode(options)}" if options else "")


def _shown(name: str, otherwise: str = "an option") -> str:
    """A name from a URL, if it cannot be part of a secret."""
    if not OPTION_NAME.fullmatch(name):
        return otherwise
    return name if otherwise != "an option" else f"the option '{name}'"


CANONICAL: Mapping[str, Callable[[str], str]] = {"database_url": postgresql_url, "redis_url": redis_url}
"""Canonicalizers by the name of the setting."""
