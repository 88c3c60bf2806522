"""When jobs fit into a tenant's minute again, and what keys look like."""

import pytest

from understudy.models.api_keys import ALPHABET, Scope, is_right, new_key, parts_of, written
from understudy.producer.api.access.admission import window_wait_s

RIGHT = f"us_{'0' * 12}_{'0' * 40}"


@pytest.mark.parametrize("second", [0.0, 17.5, 59.9])
@pytest.mark.parametrize(
    ("this", "last", "jobs"), [(0, 100, 1), (40, 100, 30), (100, 0, 1), (100, 100, 100), (1, 99, 100)]
)
def test_after_the_announced_wait_the_jobs_fit(this: int, last: int, jobs: int, second: float) -> None:
    limit = 100
    wait_s = window_wait_s(this, last, jobs, limit, second)
    if wait_s == 0:
        assert this + last * (1 - second / 60) + jobs <= limit
        return
    then = second + wait_s + 1e-6
    if then < 60:
        assert this + last * (1 - then / 60) + jobs <= limit
    else:
        assert this * max(0.0, 1 - (then - 60) / 60) + jobs <= limit
    assert wait_s <= 120


def test_a_key_has_an_id_and_at_least_192_bits_of_secret() -> None:
    made = new_key()
    parts = parts_of(made.text)
    assert parts is not None and parts[0] == made.id
    assert len(parts[1]) * 5 >= 192
    assert len(set(ALPHABET)) == 32 and not set("ilou") & set(ALPHABET)
    assert new_key().text != made.text
    assert made.text not in repr(made)


def test_without_a_record_no_secret_is_right() -> None:
    assert not is_right(new_key().text, None)


@pytest.mark.parametrize(
    "text", ["", "us_", "us__", "sk-abc", "us_ab_cd", RIGHT + "\n", " " + RIGHT, RIGHT.replace("0", "o")]
)
def test_what_is_not_shaped_like_a_key_is_none(text: str) -> None:
    assert parts_of(text) is None
    assert parts_of(RIGHT) is not None


def test_scopes_are_written_once_each_and_in_order() -> None:
    assert written([Scope.ADMIN, Scope.READ, Scope.ADMIN]) == "read admin"
