"""Names, signatures and times of webhooks, and the instructions of docs/webhooks.md for receivers."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import httpx
import openai
import pytest
import standardwebhooks

from understudy.models.webhook_events import DEAD, DELIVERED, EVENTS, PENDING, has_all, wants
from understudy.models.webhook_signing import new_secret, signature, signed_headers
from understudy.worker.failures.retry_after import retry_after_s
from understudy.worker.webhooks.delivery import DELAYS_S, verdict
from understudy.worker.webhooks.sender import Answer

NOW = 1_800_000_000.0
PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


def test_the_events_are_the_ends_of_jobs_and_batches_and_what_a_person_must_see() -> None:
    assert EVENTS == (
        *("job.cancelled", "job.expired", "job.failed", "job.succeeded"),
        *("batch.cancelled", "batch.completed", "batch.expired", "batch.failed"),
        *("batch.paused", "batch.resumed"),
    )


@pytest.mark.parametrize(
    ("patterns", "event", "wanted"),
    [
        (["*"], "job.failed", True),
        (["job.*"], "job.failed", True),
        (["job.*"], "batch.failed", False),
        (["batch.completed", "job.failed"], "job.failed", True),
        (["job.succeeded"], "job.failed", False),
        ([], "job.failed", False),
    ],
)
def test_patterns_name_events(patterns: list[str], event: str, wanted: bool) -> None:
    assert wants(patterns, event) is wanted


def test_metadata_must_have_every_wanted_pair() -> None:
    assert has_all({"a": "1", "b": "2"}, {"a": "1"}) and has_all({}, {})
    assert not has_all({"a": "1"}, {"a": "1", "b": "2"}) and not has_all({"a": "2"}, {"a": "1"})


def test_a_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body) == expected


def test_both_secrets_of_a_rotation_verify_and_a_strangers_does_not() -> None:
    secrets, body = [new_secret(), new_secret()], '{"é":"✓"}'.encode()
    headers = signed_headers(secrets, "evt_1", int(time.time()), body)
    for secret in secrets:
        standardwebhooks.Webhook(secret).verify(body, headers)
        openai.OpenAI(api_key="none").webhooks.verify_signature(body, headers, secret=secret)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secrets[0]).verify(body + b" ", headers)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_is_delivered(status: int) -> None:
    assert verdict(0, Answer(status), NOW, Random(1)) == (DELIVERED, 0.0)


@pytest.mark.parametrize("answer", [Answer(s) for s in (100, 301, 302, 307, 400, 404, 429, 500)] + [Answer(error="x")])
def test_everything_else_is_tried_again_until_the_last_try(answer: Answer) -> None:
    for tries, delay_s in enumerate(DELAYS_S):
        state, wait_s = verdict(tries, answer, NOW, Random(tries))
        assert state == PENDING and delay_s <= wait_s <= delay_s * 1.1
    assert verdict(len(DELAYS_S), answer, NOW, Random(1)) == (DEAD, 0.0)


def test_gone_and_what_is_given_up_are_dead_at_once() -> None:
    assert verdict(0, Answer(410), NOW, Random(1)) == (DEAD, 0.0)
    assert verdict(0, Answer(error="the job was deleted", given_up=True), NOW, Random(1)) == (DEAD, 0.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Fri, 15 Jan 2027 08:01:00", 60),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("-5", 0),
        ("soon", 0),
        ("", 0),
        ("٣", 0),
        ("Fri, 99 Foo 99999 99:99:99 GMT", 0),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date(value: str, seconds: float) -> None:
    assert max(0.0, retry_after_s({"retry-after": value}, NOW) or 0.0) == seconds
    assert retry_after_s({}, NOW) is None


def test_retry_after_never_hastens_a_try_and_never_puts_it_off_for_more_than_a_day() -> None:
    assert verdict(1, Answer(503, headers={"retry-after": "1"}), NOW, Random(1))[1] >= DELAYS_S[1]
    assert verdict(1, Answer(503, headers={"retry-after": "-9999999"}), NOW, Random(1))[1] >= DELAYS_S[1]
    for longest in ("9999999", "9" * 5_000):
        assert verdict(0, Answer(503, headers={"retry-after": longest}), NOW, Random(1))[1] == 86_400


async def test_the_receiver_of_the_page_takes_what_is_genuine_and_nothing_else() -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(source.strip().splitlines()) < 10
    secret, names = new_secret(), dict[str, Any]()
    exec(source.replace("whsec_…", secret), names)
    body = b'{"type": "job.succeeded", "data": {"id": "job_1", "result": {}}}'
    genuine: Mapping[str, str] = signed_headers([secret], "evt_1", int(time.time()), body)
    forged = {**genuine, "webhook-id": "evt_2"}
    transport = httpx.ASGITransport(names["app"], raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hooks") as http:
        assert (await http.post("/llm", content=body, headers=genuine)).status_code == 200
        assert (await http.post("/llm", content=body, headers=forged)).status_code == 500
