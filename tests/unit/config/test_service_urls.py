"""Addresses of PostgreSQL and Redis are accepted as other programs write them, or refused without any part of a
password."""

from pathlib import Path

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from sqlalchemy import make_url

from understudy.models.config.service_urls import LIBPQ_OPTIONS, BadAddress, postgresql_url, redis_url
from understudy.models.config.settings import SettingsError, load_settings

PLACE = "postgresql://us:secret@h:5432/d"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (PLACE, PLACE),
        ("postgres://h/d", "postgresql://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql://h/d"),
        ("postgresql+psycopg2://h/d?application_name=x", "postgresql://h/d?application_name=x"),
        ("postgres://h/d?pgbouncer=true&connect_timeout=5", "postgresql://h/d?connect_timeout=5"),
        ("postgres://h/d?schema=public", "postgresql://h/d"),
        ("postgres://h/d?ssl=true", "postgresql://h/d?sslmode=require"),
        ("postgres://h/d?sslmode=no-verify", "postgresql://h/d?sslmode=require"),
        ("postgresql:///d?host=/run/pg&user=me%40corp", "postgresql:///d?host=%2Frun%2Fpg&user=me%40corp"),
        ("postgresql://h/d?password=a@b", "postgresql://h/d?password=a%40b"),
        ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("postgresql://us:x@a:1,b:2/d?sslmode=require", "postgresql://us:x@/d?host=a%3A1&host=b%3A2&sslmode=require"),
    ],
)
def test_an_address_of_postgresql_is_taken_as_other_programs_write_it(given: str, taken: str) -> None:
    assert postgresql_url(given) == taken
    make_url(taken)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("jdbc:postgresql://h/d?user=us&password=secret", "is a JDBC URL; write postgresql://"),
        ("Host=h;Port=5432;Password=secret", "cannot be parsed; write postgresql://"),
        ("mysql://us:secret@h/d", "begins with mysql://; only postgresql:// is supported"),
        ("sqlite:///ledger.db", "names SQLite, which needs no URL"),
        ("postgres://h/d?schema=other", r"has the option 'schema'; use \?options=-csearch_path%3DNAME"),
        ("postgres://h/d?connection_limit=1", "has the option 'connection_limit', which PostgreSQL does not know"),
        ("postgres://h/d?sslmode=always", "has an sslmode that is not one of disable, allow"),
        ("postgres://h:99999/d", "a port that is not a number"),
        ("postgres://us:secret", "a port that is not a number"),
    ],
)
def test_what_cannot_be_an_address_of_postgresql_is_one_sentence(given: str, said: str) -> None:
    with pytest.raises(BadAddress, match=said) as refused:
        postgresql_url(given)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("redis://h", "redis://h"),
        ("valkeys://h:6380/2", "rediss://h:6380/2"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "rediss://h/0?ssl_cert_reqs=none"),
        (
            "rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem",
            "rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fca.pem",
        ),
        ("redis://:a@b@h/1", "redis://:a%40b@h/1"),
        ("redis://:a[b]@[::1]:1/1", "redis://:a%5Bb%5D@[::1]:1/1"),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///a b/#x@y/redis.sock?db=0", "unix:///a b/#x@y/redis.sock?db=0"),
    ],
)
def test_an_address_of_redis_is_taken_as_other_programs_write_it(given: str, taken: str) -> None:
    assert redis_url(given) == taken
    redis.asyncio.Redis.from_url(taken)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("localhost:6379", "is not a Redis URL; write it as redis://host:6379/0"),
        ("redis-sentinel://:secret@h/0", "is not a Redis URL"),
        ("redis://:secret@h/main", "does not end in a database number"),
        ("redis://:secret@h:port/0", "a port that is not a number"),
        ("redis://h/0?decode_responses=true", "has the option 'decode_responses', which is unknown"),
        ("redis://h/0?ssl_cert_reqs=none", "needs rediss:// instead of redis://"),
        ("rediss://h/0?ssl_cert_reqs=never", "has an ssl_cert_reqs that is not one of none, optional, required"),
        ("redis://h/0?socket_timeout=soon", "with a value that is not a number"),
    ],
)
def test_what_cannot_be_an_address_of_redis_is_one_sentence(given: str, said: str) -> None:
    with pytest.raises(BadAddress, match=said) as refused:
        redis_url(given)
    assert "secret" not in str(refused.value)


parts = st.text("abcXYZ0123", min_size=4, max_size=8)


@given(parts, parts, st.sampled_from("/#?"), st.sampled_from(["", "@", "=", ":", "?x="]))
def test_no_part_of_a_password_that_was_not_escaped_is_shown(one: str, two: str, mark: str, more: str) -> None:
    for scheme, read in (("postgresql", postgresql_url), ("redis", redis_url)):
        with pytest.raises(BadAddress) as refused:
            read(f"{scheme}://us:{one}{mark}{more}{two}@host:1234/0?sslmode=require")
        assert one not in str(refused.value) and two not in str(refused.value)


def test_a_password_with_an_at_sign_gets_the_hint_how_to_write_it() -> None:
    with pytest.raises(BadAddress, match="write @ as %40"):
        postgresql_url("postgres://us:p@ss@h/d")


def test_the_options_that_libpq_has_are_known() -> None:
    assert {option.keyword.decode() for option in pq.Conninfo.get_defaults()} - LIBPQ_OPTIONS <= {
        *("sslkeylogfile", "scram_client_key", "scram_server_key"),
        *("oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope"),
    }


def test_a_wrong_address_is_named_by_where_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "understudy.toml"
    file.write_text('deadline_s = 60\ndatabase_url = "mysql://us:secret@h/d"\n')
    with pytest.raises(SettingsError, match=r"understudy\.toml, line 2: database_url begins with mysql://"):
        load_settings(file, {})
    with pytest.raises(SettingsError, match=r"^REDIS_URL is not a Redis URL"):
        load_settings(file, {"REDIS_URL": "h:6379", "DATABASE_URL": PLACE})
    quoted = load_settings(file, {"REDIS_URL": " redis://h/0\n", "DATABASE_URL": '"postgres://h/d"'})
    assert (quoted.redis_url, quoted.database_url) == ("redis://h/0", "postgresql://h/d")
    settings = load_settings(
        file, {"REDIS_URL": "rediss://h?ssl_cert_reqs=CERT_NONE", "DATABASE_URL": "postgres://h/d"}
    )
    assert (settings.redis_url, settings.database_url) == ("rediss://h?ssl_cert_reqs=none", "postgresql://h/d")
