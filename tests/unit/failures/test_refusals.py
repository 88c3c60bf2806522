"""libpq's errors become sentences with the cause and what to do."""

import pytest

from understudy.models.store.database.error_translation import why_refused

TO = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (TO + 'FATAL:  password authentication failed for user "app"', "rejects the user or the password"),
        (TO + 'FATAL:  database "led" does not exist', "does not exist; create it"),
        (TO + 'FATAL:  role "app" does not exist', "has no such user"),
        (TO + "FATAL:  sorry, too many clients already", "has no connections left"),
        (TO + 'FATAL:  too many connections for role "app"', "has no connections left"),
        (TO + "FATAL:  the database system is starting up", "is starting up"),
        (TO + "server does not support SSL, but SSL was required", "offers no TLS"),
        (
            TO + 'FATAL:  no pg_hba.conf entry for host "a", user "app", database "led", no encryption',
            "sslmode=require",
        ),
        (
            TO + 'FATAL:  no pg_hba.conf entry for host "a", user "app", database "led", SSL encryption',
            "in pg_hba.conf",
        ),
        (TO + "SSL error: certificate verify failed", "not trusted"),
        (TO + 'server certificate for "a" does not match host name "b"', "for another host name"),
        ('connection is bad: connection to server on socket "/x" failed: No such file or directory', "no socket there"),
        ("consuming input failed: server closed the connection unexpectedly\n\tThis", "closed the connection"),
        (TO + "FATAL:  kein Zutritt mit secret\nmore", "cannot be reached: kein Zutritt mit ***; check that"),
        ("", "no reason was given"),
    ],
)
def test_a_refusal_has_its_cause_and_no_secret(said: str, reason: str) -> None:
    words = why_refused(said, "secret")
    assert reason in words
    assert "secret" not in words and "\n" not in words
