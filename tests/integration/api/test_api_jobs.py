"""Single jobs over HTTP: in process, on real ledgers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from api_help import Served, bearer, key_for, served
from ledger_help import call, failed, new_worker, put_back, request_of, run_all, singles, succeeded

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.execution import ResultRecord, Settled
from understudy.models.schemas.process import NoJudge, SchemaProcess
from understudy.models.state import JobState
from understudy.models.store import Store, StoreBusy
from understudy.producer.api.context import TenantRules

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"},
            "other": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"},
        },
        "chains": {"careful": {"steps": ["lead/large", "other/small"]}},
        "api": {"max_body_bytes": 2_000_000},
    }
)
HOUR_S = 3_600.0
SAY = {"messages": [{"role": "user", "content": "Say hello."}]}
JOB = {"model": "lead/large", **SAY}


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    async with served(store, time.time, SETTINGS) as up:
        yield up


@pytest.fixture
async def http(api: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


async def submitted(http: httpx.AsyncClient, **words: Any) -> str:
    response = await http.post("/v1/jobs", json={**JOB, **words})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def failed_with(store: Store, job_id: str, status: int | None, body: str | None, error: Any = None) -> None:
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, [job_id])
    result = ResultRecord(status, body, error, provider="lead", model="large")
    settled = Settled(job.id, job.batch_id, job.claim_no, JobState.FAILED, [call(job, FailureClass.SERVER)], result)
    await store.claims.settle(worker, [settled])


async def test_a_job_is_accepted_and_says_where_its_result_will_be(http: httpx.AsyncClient, store: Store) -> None:
    words = {"metadata": {"project": "poems"}, "custom_id": "mine", "priority": "interactive", "expires_in_s": 60}
    response = await http.post(
        "/v1/jobs",
        json={
            "chain": "careful",
            "fallbacks": ["other/large"],
            "callback_url": "https://example.com/x",
            **SAY,
            **words,
        },
    )
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"http://127.0.0.1:8080/v1/jobs/{job['id']}/result" == job["links"]["result"]
    assert response.headers["retry-after"] == "1"
    assert job["object"] == "job" and job["state"] == "queued" and job["priority"] == "interactive"
    assert job["custom_id"] == "mine" and job["metadata"] == {"project": "poems"} and job["batch_id"] is None
    assert job["chain"] == ["lead/large", "other/small", "other/large"]
    assert job["expires_at"] - job["created_at"] in (60, 61)
    assert job["callback_url"] == "https://example.com/x"
    assert orjson.loads(await request_of(store, job["id"]) or "") == SAY, "none of our words goes to a provider"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"messages": []}, "messages"),
        ({"stream": True}, "stream"),
        ({"chain": "none"}, "chain"),
        ({"chain": {"a": 1}}, "chain"),
        ({"fallbacks": "lead/x"}, "fallbacks"),
        ({"fallbacks": [{"model": "lead/x", "stream": True}]}, "fallbacks[0]"),
        ({"patience_s": -1}, "patience_s"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": 1}, "priority"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 604_801}, "expires_in_s"),
        ({"expires_in_s": True}, "expires_in_s"),
        ({"expires_in_s": "60"}, "expires_in_s"),
        ({"callback_url": "ftp://example.com"}, "callback_url"),
        ({"callback_url": "https://user:secret@example.com"}, "callback_url"),
        ({"callback_url": "https://example.com/" + "x" * 2_048}, "callback_url"),
        ({"callback_url": "https://example.com/\n"}, "callback_url"),
        ({"callback_url": ["https://example.com"]}, "callback_url"),
        ({"callback_url": "http://169.254.169.254/"}, "callback_url"),
        ({"callback_url": "https://[::1"}, "callback_url"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {"k": "\0"}}, "metadata.k"),
        ({"metadata": {"\0": "k"}}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"custom_id": "\0"}, "custom_id"),
        ({"custom_id": ""}, "custom_id"),
        ({"custom_id": ["x"]}, "custom_id"),
        ({"custom_id": "x" * 513}, "custom_id"),
    ],
)
async def test_what_is_wrong_is_named(http: httpx.AsyncClient, words: dict[str, Any], field: str) -> None:
    response = await http.post("/v1/jobs", json={**JOB, **words})
    error = response.json()["error"]
    assert response.status_code == 400, response.text
    assert error["param"] == field and set(error) == {"message", "type", "param", "code"}
    assert "secret" not in error["message"]
    assert (await http.get("/v1/jobs")).json()["data"] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf{}",
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"lead/large","temperature":NaN,"messages":[{"role":"user","content":"x"}]}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"lead/large","messages":[{"role":"user","content":"x"}],"x":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"fallbacks":[{"model":"lead/x","x":'
        + b"[" * 253
        + b"]" * 253
        + b'}],"messages":[{"role":"user","content":"x"}]}',
        b'{"messages":[{"role":"user","content":"x"}],"custom_id":1e400}',
    ],
)
async def test_bodies_that_are_not_plain_json_are_rejected(http: httpx.AsyncClient, raw: bytes) -> None:
    response = await http.post("/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text[:300]
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("depth", [200, 240, 245, 248, 250, 251, 252])
async def test_overrides_nested_deep_are_accepted_or_refused(http: httpx.AsyncClient, depth: int) -> None:
    raw = b'{"model":"lead/y","fallbacks":[{"model":"lead/x","x":%s%s}],"messages":[{"role":"user","content":"x"}]}'
    response = await http.post(
        "/v1/jobs", content=raw % (b"[" * depth, b"]" * depth), headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (202, 400), response.text[:300]


async def test_where_schemas_cannot_be_checked_now_the_answer_is_to_try_again(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_judge(*_: object) -> None:
        raise NoJudge

    monkeypatch.setattr(SchemaProcess, "ask", no_judge)
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": new_id("job")}}}
    asked = {**JOB, "accept": ["json_schema"], "response_format": wanted}
    for path, body in (
        ("/v1/jobs", asked),
        ("/v1/jobs:batch", {"jobs": [JOB, asked]}),
        ("/v1/chat/completions", asked),
    ):
        response = await http.post(path, json=body)
        assert response.status_code == 503, path
        assert int(response.headers["Retry-After"]) > 0
        assert response.json()["error"]["code"] == "unavailable"
        assert "try again later" in response.json()["error"]["message"]
    assert await store.planning.ready_lanes(10) == [], "nothing of it was accepted"


async def test_a_prompt_may_hold_what_a_database_cannot(http: httpx.AsyncClient, store: Store) -> None:
    message = {"role": "user", "content": "a\0b 😀"}
    job_id = await submitted(http, messages=[message])
    assert orjson.loads(await request_of(store, job_id) or "")["messages"] == [message]


async def test_the_same_request_makes_one_job_however_often_it_is_sent(http: httpx.AsyncClient, store: Store) -> None:
    answers = await asyncio.gather(
        *(http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"}) for _ in range(100))
    )
    assert {answer.status_code for answer in answers} == {202}, [a.text for a in answers if a.status_code != 202][:1]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len((await http.get("/v1/jobs")).json()["data"]) == 1
    job_id = answers[0].json()["id"]
    await run_all(store, await new_worker(store), [job_id])
    again = await http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"})
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, job_id, "succeeded")
    other = await http.post("/v1/jobs", json={**JOB, "n": 1}, headers={"Idempotency-Key": "one"})
    assert other.status_code == 422 and other.json()["error"]["param"] == "Idempotency-Key"
    where = await http.post("/v1/jobs:batch", json=JOB, headers={"Idempotency-Key": "one"})
    assert where.status_code == 422, "the same body for another route is another request"


async def test_a_request_that_is_written_once_more_in_other_words_is_the_same(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one", "Content-Type": "application/json"}
    turned = {key: JOB[key] for key in reversed(JOB)}
    bodies = (json.dumps(JOB), json.dumps(turned, indent=2, ensure_ascii=False), "\ufeff" + json.dumps(turned))
    answers = [await http.post("/v1/jobs", content=body.encode(), headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/chat/completions"])
@pytest.mark.parametrize("model", ["nobody/large", "unheard-of"])
async def test_an_unknown_model_is_not_found_as_at_openai(http: httpx.AsyncClient, path: str, model: str) -> None:
    response = await http.post(path, json={**JOB, "model": model})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert error["type"] == "invalid_request_error"


async def test_a_body_in_latin_1_is_told_what_to_do(http: httpx.AsyncClient) -> None:
    raw = json.dumps({**JOB, "messages": [{"role": "user", "content": "Möbel"}]}, ensure_ascii=False).encode("latin-1")
    response = await http.post("/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    message = response.json()["error"]["message"]
    assert response.status_code == 400
    assert "it is not UTF-8 text" in message and "-ContentType 'application/json; charset=utf-8'" in message


async def test_what_was_accepted_before_is_not_judged_again(http: httpx.AsyncClient, api: Served) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await http.post("/v1/jobs", json={"chain": "careful", **SAY}, headers=headers)
    api.context.settings, api.context.rules = Settings(), TenantRules()
    again = await http.post("/v1/jobs", json={"chain": "careful", **SAY}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\xe9"])
async def test_a_name_that_is_none_is_refused(http: httpx.AsyncClient, key: str) -> None:
    response = await http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": key.encode("latin-1")})
    assert response.status_code == 400 and response.json()["error"]["param"] == "Idempotency-Key"


async def test_of_many_each_is_accepted_or_refused_on_its_own(http: httpx.AsyncClient) -> None:
    jobs = [{**JOB, "custom_id": "a"}, {"model": "x/y", **SAY}, 7, {**JOB, "custom_id": "d"}]
    headers = {"Idempotency-Key": "many"}
    response = await http.post("/v1/jobs:batch", json={"jobs": jobs}, headers=headers)
    data = response.json()["data"]
    assert response.status_code == 200
    assert [entry["index"] for entry in data] == [0, 1, 2, 3]
    assert [entry["custom_id"] for entry in data] == ["a", None, None, "d"]
    assert [bool(entry["id"]) for entry in data] == [not entry["error"] for entry in data] == [True, False, False, True]
    assert data[1]["error"]["param"] == "model"
    assert (await http.post("/v1/jobs:batch", json={"jobs": jobs}, headers=headers)).json() == response.json()
    listed = (await http.get("/v1/jobs", params={"order": "asc"})).json()["data"]
    assert [job["id"] for job in listed] == [data[0]["id"], data[3]["id"]]


async def test_a_call_takes_from_one_to_a_thousand_jobs(http: httpx.AsyncClient) -> None:
    full = await http.post("/v1/jobs:batch", json={"jobs": [JOB] * 1_000})
    assert full.status_code == 200 and all(entry["id"] for entry in full.json()["data"])
    for jobs in ([JOB] * 1_001, [], None, {}):
        response = await http.post("/v1/jobs:batch", json={"jobs": jobs})
        assert response.status_code == 400 and response.json()["error"]["param"] == "jobs"
    none_good = await http.post("/v1/jobs:batch", json={"jobs": [7]})
    assert none_good.status_code == 200 and none_good.json()["data"][0]["error"]


async def test_a_named_call_of_which_nothing_was_accepted_takes_no_room_in_the_ledger(http: httpx.AsyncClient) -> None:
    named = {"Idempotency-Key": "none"}
    for _ in range(2):
        refused = await http.post("/v1/jobs:batch", json={"jobs": [7]}, headers=named)
        assert refused.status_code == 200 and refused.json()["data"][0]["error"]
    accepted = await http.post("/v1/jobs:batch", json={"jobs": [JOB]}, headers=named)
    assert accepted.json()["data"][0]["id"], "the name is free"


async def test_a_busy_ledger_accepts_nothing_and_says_when_to_come_again(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        raise StoreBusy("the database is busy; try again")

    monkeypatch.setattr("understudy.models.store.work.intake.insert_jobs", busy)
    response = await http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "busy"})
    assert response.status_code == 503 and 0 < int(response.headers["retry-after"]) < 120
    monkeypatch.undo()
    assert (await http.get("/v1/jobs")).json()["data"] == []
    again = await http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "busy"})
    assert again.status_code == 202, "the name was not taken by what was refused"


async def test_a_job_from_queued_to_answered(http: httpx.AsyncClient, store: Store) -> None:
    job_id = await submitted(http)
    waiting = await http.get(f"/v1/jobs/{job_id}/result")
    assert waiting.status_code == 202 and waiting.json()["state"] == "queued"
    assert waiting.headers["location"].endswith(f"/v1/jobs/{job_id}/result") and waiting.headers["retry-after"]
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, [job_id])
    assert (await http.get(f"/v1/jobs/{job_id}")).json()["state"] == "running"
    await store.claims.settle(worker, [succeeded(job, cost_usd=0.25)])
    done = (await http.get(f"/v1/jobs/{job_id}")).json()
    assert done["state"] == "succeeded" and done["provider"] == "lead" and done["cost_usd"] == 0.25
    assert done["attempts"][0]["failure"] is None and done["attempt_count"] == 1 and done["error"] is None
    result = await http.get(f"/v1/jobs/{job_id}/result")
    assert (result.status_code, result.json()) == (200, {"answer": "yes"})
    assert "location" not in result.headers and "retry-after" not in result.headers


async def test_a_word_that_is_none_is_answered_with_all_that_there_are(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/jobs", params={"state": "bogus"})
    assert answer.status_code == 400
    said = answer.json()["error"]["message"]
    assert said.startswith("'state' should be 'queued', 'scheduled', 'running'") and said.endswith("or 'expired'")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "POST"}),
        ("PATCH", "/v1/files/file_1", {"DELETE", "GET"}),
        ("DELETE", "/v1/chat/completions", {"POST"}),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_answered_with_all_that_it_takes(
    http: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == allowed
    assert answer.headers["allow"] in answer.json()["error"]["message"]


async def test_a_job_whose_cost_is_not_known_says_null_and_so_does_its_call(
    http: httpx.AsyncClient, store: Store
) -> None:
    job_id = await submitted(http)
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, [job_id])
    outcome = succeeded(job, unpriced=True)
    outcome.attempts[0].cost_usd, outcome.attempts[0].unpriced = 0.0, True
    await store.claims.settle(worker, [outcome])
    assert (await http.get(f"/v1/jobs/{job_id}")).json()["cost_usd"] is None
    (made,) = (await http.get("/v1/attempts")).json()["data"]
    assert made["cost_usd"] is None and "unpriced" not in made


async def test_a_job_whose_time_has_not_come_is_scheduled(http: httpx.AsyncClient, store: Store) -> None:
    job_id = await submitted(http)
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, [job_id])
    await store.claims.settle(worker, [put_back(job, await store.now() + 30, "lead/large is cooling down")])
    response = await http.get(f"/v1/jobs/{job_id}")
    shown = response.json()
    assert shown["state"] == "scheduled" and shown["wait_reason"] == "lead/large is cooling down"
    assert 25 < shown["wait_until"] - time.time() <= 31 and 25 < int(response.headers["retry-after"]) <= 30
    ids = {state: await listed(http, state=state) for state in ("scheduled", "queued")}
    assert ids == {"scheduled": [job_id], "queued": []}


@pytest.mark.parametrize(
    ("status", "body", "shown", "message"),
    [
        (
            400,
            '{"error":{"message":"bad","type":"t","param":"p","code":"c"},"extra_fields":{"attempts":[]}}',
            400,
            "bad",
        ),
        (429, '{"error":{"message":"slow"}}', 429, "slow"),
        (503, '[{"error":{"message":"gemini","code":503}}]', 503, "gemini"),
        (500, '"a text"', 500, "a text"),
        (404, '{"message":"bare"}', 404, "bare"),
        (500, '{"error":"a text"}', 500, "a text"),
        (500, '{"error":{"message":{"deep":1}}}', 500, '{"deep":1}'),
        (302, '{"error":{"message":"elsewhere"}}', 502, None),
        (500, None, 500, None),
        (None, None, 502, "no connection"),
    ],
)
async def test_a_failed_job_answers_with_the_providers_error(
    http: httpx.AsyncClient, store: Store, status: int | None, body: str | None, shown: int, message: str | None
) -> None:
    job_id = await submitted(http)
    own = {"code": "connect", "message": "no connection"} if status is None else None
    await failed_with(store, job_id, status, body, own)
    response = await http.get(f"/v1/jobs/{job_id}/result")
    error = response.json()["error"]
    assert response.status_code == shown and set(error) == {"message", "type", "param", "code"}
    assert error["message"] and (message is None or error["message"] == message)
    assert response.headers["x-should-retry"] == "false"
    assert (await http.get(f"/v1/jobs/{job_id}")).json()["error"] == error


async def test_cancelling_ends_a_queued_job_and_asks_a_running_one_to_stop(
    http: httpx.AsyncClient, store: Store
) -> None:
    queued, running, ended = [await submitted(http) for _ in range(3)]
    worker = await new_worker(store)
    await run_all(store, worker, [ended])
    await store.claims.start(worker, [running])
    shown = {job_id: (await http.delete(f"/v1/jobs/{job_id}")).json() for job_id in (queued, running, ended)}
    assert [shown[job_id]["state"] for job_id in (queued, running, ended)] == ["cancelled", "running", "succeeded"]
    assert [shown[job_id]["cancel_requested"] for job_id in (queued, running, ended)] == [True, True, False]
    assert await store.jobs.cancelled_running() == [running]
    assert (await http.delete(f"/v1/jobs/{queued}")).status_code == 200
    result = await http.get(f"/v1/jobs/{queued}/result")
    assert result.status_code == 409 and result.json()["error"]["code"] == "job_cancelled"


async def test_what_expired_or_was_pruned_says_so(http: httpx.AsyncClient, store: Store) -> None:
    (expired,) = await singles(store, 1, expires_at=await store.now() - 1)
    await store.batch_lifecycle.expire_slice()
    result = await http.get(f"/v1/jobs/{expired}/result")
    assert result.status_code == 409 and result.json()["error"]["code"] == "job_expired"
    named = {"Idempotency-Key": "one"}
    pruned = (await http.post("/v1/jobs", json=JOB, headers=named)).json()["id"]
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, [pruned])
    record = ResultRecord(200, None, provider="lead", model="large")
    await store.claims.settle(worker, [Settled(job.id, "", job.claim_no, JobState.SUCCEEDED, [call(job)], record)])
    result = await http.get(f"/v1/jobs/{pruned}/result")
    assert result.status_code == 410 and result.json()["error"]["code"] == "result_pruned"
    assert result.headers["x-should-retry"] == "false"
    await store.retention.prune(await store.now() + 1)
    assert (await http.get(f"/v1/jobs/{pruned}")).status_code == 404
    again = await http.post("/v1/jobs", json=JOB, headers=named)
    assert again.status_code == 410, "a job that is gone is not made a second time under its name"


async def listed(http: httpx.AsyncClient, **asked: Any) -> list[str]:
    response = await http.get("/v1/jobs", params=asked)
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()["data"]]


async def test_jobs_are_listed_by_state_batch_provider_and_time(http: httpx.AsyncClient, store: Store) -> None:
    ids = [await submitted(http) for _ in range(5)]
    worker = await new_worker(store)
    await run_all(store, worker, ids[:2])
    (job,) = await store.claims.start(worker, ids[2:3])
    await store.claims.settle(worker, [failed(job)])
    assert await listed(http) == ids[::-1]
    assert await listed(http, order="asc") == ids
    assert await listed(http, state="succeeded", order="asc") == ids[:2]
    assert await listed(http, state="failed") == [ids[2]]
    assert await listed(http, provider="lead", order="asc") == ids[:2]
    assert await listed(http, batch_id="batch_none") == []
    assert await listed(http, created_after=time.time() + 60) == []
    assert await listed(http, created_before=time.time() + 60, limit=1) == [ids[4]]


async def test_pages_follow_each_other_both_ways(http: httpx.AsyncClient) -> None:
    ids = [await submitted(http) for _ in range(5)]
    for order, wanted in (("desc", ids[::-1]), ("asc", ids)):
        seen: list[str] = []
        more = True
        while more:
            asked = {"limit": 2, "order": order, **({"after": seen[-1]} if seen else {})}
            page = (await http.get("/v1/jobs", params=asked)).json()
            seen += [job["id"] for job in page["data"]]
            more = page["has_more"]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], seen[-1])
        assert seen == wanted


async def test_the_log_of_calls_is_filtered_and_paged(http: httpx.AsyncClient, store: Store) -> None:
    ids = [await submitted(http) for _ in range(4)]
    worker = await new_worker(store)
    await run_all(store, worker, ids[:3])
    (job,) = await store.claims.start(worker, ids[3:])
    await store.claims.settle(worker, [failed(job, FailureClass.RATE_LIMIT)])

    async def calls(**asked: Any) -> list[str]:
        response = await http.get("/v1/attempts", params=asked)
        assert response.status_code == 200, response.text
        return [each["job_id"] for each in response.json()["data"]]

    assert sorted(await calls()) == sorted(ids)
    assert await calls(failure="rate_limit") == [ids[3]]
    assert sorted(await calls(failure="answered")) == ids[:3]
    assert await calls(job_id=ids[1]) == [ids[1]]
    assert await calls(provider="lead", key="main", since=0, until=time.time() + 60, limit=2) == (await calls())[:2]
    assert await calls(key="other") == await calls(batch_id="batch_x") == await calls(until=1) == []
    page = (await http.get("/v1/attempts", params={"limit": 3})).json()
    rest = (await http.get("/v1/attempts", params={"limit": 3, "after": page["last_id"]})).json()
    assert page["has_more"] and not rest["has_more"]
    assert [each["job_id"] for each in page["data"] + rest["data"]] == await calls()
    assert page["data"][0]["cost_usd"] is not None and page["data"][0]["object"] == "attempt"


@pytest.mark.parametrize("nonsense", ["%00", "job_%00", "x" * 200, "%F0%9F%98%80", "job_none", "'--"])
async def test_ids_that_are_none_are_not_found(http: httpx.AsyncClient, nonsense: str) -> None:
    for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
        response = await http.request(method, f"/v1/jobs/{nonsense}{path}")
        assert response.status_code == 404, (method, path, response.text)
        assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "state=none",
        "limit=0",
        "limit=101",
        "order=up",
        "after=%00",
        "provider=%00",
        "created_after=nan",
        "batch_id=%27",
    ],
)
async def test_questions_that_make_no_sense_are_refused(http: httpx.AsyncClient, query: str) -> None:
    response = await http.get(f"/v1/jobs?{query}")
    assert response.status_code == 400 and response.json()["error"]["param"]


async def test_tenants_see_only_their_own(api: Served, store: Store) -> None:
    mine, theirs = [bearer(await key_for(store, Scope.READ, Scope.SUBMIT, tenant=name)) for name in ("mine", "theirs")]
    async with api.client() as http:
        named = {"Idempotency-Key": b"one"}
        job_id = (await http.post("/v1/jobs", json=JOB, headers={**mine, **named})).json()["id"]
        worker = await new_worker(store)
        (job,) = await store.claims.start(worker, [job_id])
        settled = succeeded(job)
        settled.tenant = job.tenant
        await store.claims.settle(worker, [settled])
        for method, path in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
            foreign = await http.request(method, f"/v1/jobs/{job_id}{path}", headers=theirs)
            absent = await http.request(method, f"/v1/jobs/job_none{path}", headers=theirs)
            assert foreign.status_code == 404
            assert foreign.text.replace(job_id, "") == absent.text.replace("job_none", "")
        for path in ("/v1/jobs", "/v1/attempts", f"/v1/attempts?job_id={job_id}"):
            assert (await http.get(path, headers=theirs)).json()["data"] == []
            assert len((await http.get(path, headers=mine)).json()["data"]) == 1
        other = await http.post("/v1/jobs", json=JOB, headers={**theirs, **named})
        assert other.status_code == 202 and other.json()["id"] != job_id, "names belong to tenants"


async def test_an_answer_is_held_until_the_job_has_ended(http: httpx.AsyncClient, store: Store) -> None:
    job_id = await submitted(http)
    began = time.monotonic()
    held = [
        asyncio.create_task(http.get(f"/v1/jobs/{job_id}", params={"wait": 30})),
        asyncio.create_task(http.get(f"/v1/jobs/{job_id}/result", headers={"Prefer": "respond-async, wait=30"})),
    ]
    done, _ = await asyncio.wait(held, timeout=0.2)
    assert not done
    await run_all(store, await new_worker(store), [job_id])
    job, result = await asyncio.gather(*held)
    assert time.monotonic() - began < 10
    assert (job.status_code, job.json()["state"]) == (200, "succeeded")
    assert (result.status_code, result.json()) == (200, {"answer": "yes"})
    assert job.headers["preference-applied"] == result.headers["preference-applied"] == "wait=30"


async def test_a_cancelled_job_is_waited_for_no_longer(http: httpx.AsyncClient) -> None:
    job_id = await submitted(http)
    held = asyncio.create_task(http.get(f"/v1/jobs/{job_id}/result", params={"wait": 30}))
    await asyncio.wait([held], timeout=0.1)
    await http.delete(f"/v1/jobs/{job_id}")
    response = await asyncio.wait_for(held, 10)
    assert response.status_code == 409 and response.headers["preference-applied"] == "wait=30"


async def test_a_wait_that_is_over_answers_like_a_request_without_a_wait(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/jobs", params={"wait": 1}, json=JOB)
    assert response.status_code == 202 and response.headers["preference-applied"] == "wait=1"
    result = await http.get(f"/v1/jobs/{response.json()['id']}/result", headers={"Prefer": "wait=1"})
    assert result.status_code == 202 and result.headers["location"]


async def test_a_held_submission_answers_with_the_ended_job(http: httpx.AsyncClient, store: Store) -> None:
    held = asyncio.create_task(http.post("/v1/jobs", params={"wait": 30}, json=JOB))
    while not (ids := [job["id"] for job in (await http.get("/v1/jobs")).json()["data"]]):
        assert not held.done()
    await run_all(store, await new_worker(store), ids)
    response = await asyncio.wait_for(held, 10)
    assert (response.status_code, response.json()["id"], response.json()["state"]) == (200, ids[0], "succeeded")


@pytest.mark.parametrize("wait", ["61", "-1", "x", "1.5"])
async def test_a_wait_that_is_too_long_is_refused_as_a_parameter(http: httpx.AsyncClient, wait: str) -> None:
    job_id = await submitted(http)
    response = await http.get(f"/v1/jobs/{job_id}", params={"wait": wait})
    assert response.status_code == 400 and response.json()["error"]["param"] == "wait"


@pytest.mark.parametrize("prefer", ["wait=x", "wait", "return=minimal", "swait=9"])
async def test_preferences_that_are_not_understood_are_passed_over(http: httpx.AsyncClient, prefer: str) -> None:
    job_id = await submitted(http)
    response = await http.get(f"/v1/jobs/{job_id}", headers={"Prefer": prefer})
    assert response.status_code == 200 and "preference-applied" not in response.headers
