"""Who is served, and what they may do."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from api_help import Clock, Served, bearer, key_for, served

from understudy.models.api_keys import Scope, new_key, parts_of
from understudy.models.config.settings import ApiSettings, Settings
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.producer.api.access.keyring import KEPT_KEYS, KEPT_S

OF_PROXIES = """
X-Real-IP X_Real_IP x-forwarded X-Forwarded-Server X_Forwarded_For CF-Connecting-IP CF-Connecting-IPv6 CF-Ray
True-Client-IP X-Client-IP Client-IP X-Cluster-Client-IP Fly-Client-IP Fly-Region X-Original-Forwarded-For
X-Original-Host X-Original-URI X-Envoy-External-Address X-Envoy-Peer-Metadata X-ProxyUser-Ip Tailscale-User-Login
X-Amzn-Trace-Id X-Amz-Cf-Id CDN-Loop X-Host Proxy-Connection Proxy-Authorization X-Azure-ClientIP X-Azure-SocketIP
X-ARR-Log-Id Fastly-Client-IP X-Varnish X-Remote-Addr Remote-Addr X-Appengine-User-IP X-Sucuri-ClientIP
Incap-Client-IP Akamai-Origin-Hop X-Scheme Front-End-HTTPS X-SSL-Client-Cert X-Goog-IAP-JWT-Assertion
X-Auth-Request-User Remote-User Max-Forwards Surrogate-Capability X-Caddy-Upstream
""".split()
"""Headers of which one is enough to tell a proxy by."""

OF_CLIENTS = """
Accept Accept-Encoding Accept-Language Cache-Control Content-Language Cookie Date DNT Expect-CT From HTTP-Referer
If-Match Idempotency-Key OpenAI-Beta OpenAI-Organization OpenAI-Project Pragma Prefer Priority Range Referer TE
Traceparent Tracestate User-Agent Upgrade-Insecure-Requests X-API-Key API-Key X-B3-TraceId X-Client-Request-Id
X-Correlation-ID X-Goog-Api-Client X-Goog-Api-Key X-Prometheus-Scrape-Timeout-Seconds X-Request-ID X-Requested-With
X-Skip X-Stainless-Lang X-Stainless-OS X-Title X-Zip anthropic-version baggage helicone-auth sentry-trace
x-ms-client-request-id
""".split()
"""Headers that programs on this machine send, and tools for tracing."""


@pytest.fixture
def monotonic() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
async def api(store: Store, monotonic: Clock) -> AsyncIterator[Served]:
    async with served(store, time.time, monotonic=monotonic) as opened:
        yield opened


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "http://127.9.9.9"]
)
async def test_without_any_key_callers_on_this_machine_are_served(api: Served, url: str) -> None:
    async with api.client(url=url) as http:
        answer = await http.get("/try/admin", headers=bearer("whatever a client must send"))
    assert (answer.status_code, answer.json()) == (200, {"tenant": "default"})


@pytest.mark.parametrize("address", ["10.0.0.9", "192.168.1.2", "203.0.113.5", "::ffff:10.0.0.1", "fe80::1"])
async def test_without_any_key_no_other_caller_is_served(api: Served, address: str) -> None:
    async with api.client(address=address) as http:
        answer = await http.get("/try/read")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "understudy keys create" in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "localhost"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
        {"Host": "rebound.example.com"},
        {"Host": "127.0.0.1.example.com"},
        {"Host": "localhost@example.com"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "evil.example@127.0.0.1"},
        {"Host": "127.0.0.1@evil.example"},
        {"Host": "127.0.0.1 evil.example"},
        {"Host": "127.0.0.1/evil.example"},
        {"Host": "127.0.0.1?evil.example"},
        {"Host": "127.0.0.1#evil.example"},
        {"Host": "127.0.0.1\\evil.example"},
        {"Host": "[::1%25lo]"},
        {"Host": "0.0.0.0"},
        {"Host": "127.1"},
        {"Host": "2130706433"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "anything new"},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_without_any_key_an_outsider_cannot_look_local(api: Served, headers: dict[str, str]) -> None:
    async with api.client() as http:
        for method, path in (("GET", "/try/read"), ("POST", "/try/submit")):
            answer = await http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_api_keys")


async def test_one_header_of_any_proxy_is_enough_to_tell_it_by(api: Served) -> None:
    async with api.client() as http:
        for name in OF_PROXIES:
            answer = await http.get("/try/read", headers={name: "127.0.0.1"})
            assert answer.status_code == 401 and name.lower() in answer.json()["error"]["message"], name
            assert (await http.get("/metrics", headers={name: "127.0.0.1"})).status_code == 401


@pytest.mark.parametrize("name", ["Host", "Origin", "Sec-Fetch-Site"])
async def test_what_is_said_twice_is_believed_neither_time(api: Served, name: str) -> None:
    right = {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}[name]
    async with api.client() as http:
        for headers in ([(name, right), (name, "evil.example")], [(name, "evil.example"), (name, right)]):
            assert (await http.get("/try/read", headers=headers)).status_code == 401


async def test_what_speaks_http_1_0_is_taken_for_a_proxy(api: Served) -> None:
    async def as_nginx(scope: Any, receive: Any, send: Any) -> None:
        await api.app({**scope, "http_version": "1.0"}, receive, send)

    async with Served(as_nginx, api.context).client() as http:
        for path in ("/try/read", "/v1/keys", "/metrics"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_api_keys")
            assert "HTTP/1.0" in answer.json()["error"]["message"]
        assert (await http.get("/healthz")).status_code == 200


async def test_no_header_of_a_program_on_this_machine_is_taken_for_one_of_a_proxy(api: Served) -> None:
    async with api.client() as http:
        answer = await http.post("/try/submit", headers=dict.fromkeys(OF_CLIENTS, "x"))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_the_servers_own_pages_may_call_it(api: Served, site: str) -> None:
    async with api.client() as http:
        answer = await http.post("/try/submit", headers={"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": site})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("told", "figures"),
    [({"public_url": "https://llm.example.com"}, 401), ({"host": "0.0.0.0"}, 200), ({"host": "::"}, 200)],
)
async def test_a_server_that_others_can_reach_serves_no_one_without_a_key(
    store: Store, told: dict[str, Any], figures: int
) -> None:
    async with served(store, time.time, Settings(api=ApiSettings(**told))) as api, api.client() as http:
        answer = await http.get("/try/read")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_api_keys")
        assert (await http.get("/metrics")).status_code == figures
        headers = {"Origin": "https://llm.example.com"}
        assert (await http.get("/try/read", headers=headers)).status_code == 401
        key = await key_for(store, Scope.READ)
        api.context.keyring.forget()
        assert (await http.get("/try/read", headers=bearer(key))).status_code == 200
        assert (await http.get("/metrics", headers=bearer(key))).status_code == 200


async def test_a_first_key_is_made_once_however_many_start(store: Store) -> None:
    made = await asyncio.gather(
        *(
            store.api_keys.add_first(new_key(), tenant="default", name="first", scopes=[Scope.ADMIN], actor="test")
            for _ in range(5)
        )
    )
    (first,) = [each for each in made if each is not None]
    assert [each.id for each in await store.api_keys.listed()] == [first.id]
    await store.api_keys.revoke(first.id, actor="test")
    new = await store.api_keys.add_first(new_key(), tenant="default", name="first", scopes=[Scope.ADMIN], actor="test")
    assert new is not None and [each["action"] for each in await store.audit.entries()].count("key.create") == 2


@pytest.mark.parametrize("path", ["/healthz", "/v1/keys", "/nothing", "/v1/files/file_x/content", "/docs", "/breaks"])
async def test_every_answer_tells_browsers_to_take_it_for_what_it_is(
    api: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.context.store.api_keys, "exist", None)  # an unexpected error wherever keys are looked up
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        headers = (await http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ("script-src" in headers["content-security-policy"]) == (path == "/docs")
    assert path == "/docs" or headers["cache-control"] == "no-store"


async def test_once_a_key_exists_every_caller_needs_one(store: Store, api: Served, monotonic: Clock) -> None:
    async with api.client() as http:
        assert (await http.get("/try/read")).status_code == 200
        key = await key_for(store, Scope.READ)
        monotonic.now += KEPT_S
        refused = await http.get("/try/read")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert (await http.get("/try/read", headers=bearer(key))).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
    async with api.client(address="203.0.113.5", url="https://llm.example.com") as http:
        headers = {**bearer(key), "X-Forwarded-For": "198.51.100.7", "Origin": "https://app.example.com"}
        assert (await http.get("/try/read", headers=headers)).status_code == 200


async def test_a_scope_includes_those_below_it(store: Store, api: Served) -> None:
    allowed = {Scope.READ: ["read"], Scope.SUBMIT: ["read", "submit"], Scope.ADMIN: ["read", "submit", "admin"]}
    async with api.client() as http:
        for scope, words in allowed.items():
            headers = bearer(await key_for(store, scope))
            for word in ("read", "submit", "admin"):
                answer = await http.request("POST" if word == "submit" else "GET", f"/try/{word}", headers=headers)
                assert answer.status_code == (200 if word in words else 403)
                if word not in words:
                    assert f"'{word}'" in answer.json()["error"]["message"]
                    assert answer.json()["error"]["code"] == "missing_scope"


async def test_a_revoked_key_is_refused_as_soon_as_what_is_known_of_it_is_old(
    store: Store, api: Served, monotonic: Clock
) -> None:
    key = await key_for(store, Scope.READ)
    await key_for(store, Scope.READ)
    async with api.client() as http:
        assert (await http.get("/try/read", headers=bearer(key))).status_code == 200
        assert await store.api_keys.revoke(key.split("_")[1], actor="test")
        assert not await store.api_keys.revoke(key.split("_")[1], actor="test")
        monotonic.now += KEPT_S
        answer = await http.get("/try/read", headers=bearer(key))
        assert answer.status_code == 401
        assert "revoked" in answer.json()["error"]["message"]


async def test_an_expired_key_is_refused(store: Store, api: Served) -> None:
    key = await key_for(store, Scope.ADMIN, expires_at=time.time() - 1)
    async with api.client() as http:
        answer = await http.get("/try/read", headers=bearer(key))
    assert answer.status_code == 401
    assert "expired" in answer.json()["error"]["message"]


async def test_wrong_and_malformed_keys_are_refused_alike(store: Store, api: Served) -> None:
    right = await key_for(store, Scope.READ)
    wrong_secret = right[:-1] + ("0" if right[-1] != "0" else "1")
    unknown = new_key().text
    async with api.client() as http:
        answers = [
            await http.get("/try/read", headers=bearer(key))
            for key in (
                wrong_secret,
                unknown,
                right.upper(),
                right[:-1],
                f"{right}0",
                "sk-other",
                "us__",
                "us_\u00e9".encode(),
            )
        ]
        answers.append(await http.get("/try/read", headers={"Authorization": f"Basic {right}"}))
        answers.append(await http.get("/try/read", headers={"Authorization": "Bearer"}))
    assert {each.status_code for each in answers} == {401}
    assert {each.json()["error"]["code"] for each in answers} == {"invalid_api_key"}
    assert len({each.text for each in answers[:-2]}) == 1


async def test_a_key_is_looked_up_once_and_not_per_request(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, wrong = await key_for(store, Scope.READ), new_key().text
    looks: list[str] = []
    look = store.api_keys.find

    async def counted(key_id: str) -> object:
        looks.append(key_id)
        return await look(key_id)

    monkeypatch.setattr(store.api_keys, "find", counted)
    async with api.client() as http:
        tries = [http.get("/try/read", headers=bearer(each)) for each in (key, wrong) for _ in range(100)]
        statuses = [answer.status_code for answer in await asyncio.gather(*tries)]
    assert statuses == [200] * 100 + [401] * 100
    assert sorted(looks) == sorted(each.split("_")[1] for each in (key, wrong))


async def test_a_crowd_with_different_wrong_keys_takes_no_memory_and_locks_no_one_out(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.producer.api.access.keyring.KEPT_KEYS", 20)
    assert KEPT_KEYS > 20
    key = await key_for(store, Scope.READ)
    async with api.client() as http:
        tries = [http.get("/try/read", headers=bearer(new_key().text)) for _ in range(100)]
        statuses = {answer.status_code for answer in await asyncio.gather(*tries)}
        assert (await http.get("/try/read", headers=bearer(key))).status_code == 200
    assert statuses == {401}
    assert len(api.context.keyring._known) <= 20


async def test_administrators_manage_the_keys_of_their_own_tenant_only(store: Store, api: Served) -> None:
    acme = bearer(await key_for(store, Scope.ADMIN, tenant="acme"))
    other = await key_for(store, Scope.ADMIN, tenant="other")
    async with api.client() as http:
        made = await http.post("/v1/keys", headers=acme, json={"name": "bot", "scopes": ["submit"], "expires_in_s": 60})
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        document = made.json()
        assert parts_of(document["key"]) is not None
        assert (document["tenant"], document["scopes"], document["state"]) == ("acme", ["submit"], "active")
        answer = await http.get("/try/read", headers=bearer(document["key"]))
        assert answer.json() == {"tenant": "acme", "key": document["id"]}

        listed = (await http.get("/v1/keys", headers=acme)).json()["data"]
        assert {each["tenant"] for each in listed} == {"acme"}
        assert not {"key", "hash"} & {name for each in listed for name in each}

        assert (await http.delete(f"/v1/keys/{document['id']}", headers=bearer(other))).status_code == 404
        assert (await http.delete("/v1/keys/%00", headers=acme)).status_code == 404
        assert (await http.get("/try/read", headers=bearer(document["key"]))).status_code == 200
        revoked = await http.delete(f"/v1/keys/{document['id']}", headers=acme)
        assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
        assert (await http.delete(f"/v1/keys/{document['id']}", headers=acme)).status_code == 200
        assert (await http.get("/try/read", headers=bearer(document["key"]))).status_code == 401

        acts = (await http.get("/v1/audit", headers=acme, params={"limit": 2})).json()
        assert [(each["action"], each["subject"]) for each in acts["data"]] == [
            ("key.revoke", document["id"]),
            ("key.create", document["id"]),
        ]
        assert acts["has_more"]
        rest = await http.get("/v1/audit", headers=acme, params={"after": acts["data"][-1]["id"]})
        assert {each["tenant"] for each in rest.json()["data"]} == {"acme"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "x", "scopes": ["read"], "tenant": "other"}, "tenant"),
        ({"name": "x", "scopes": ["read"], "expires_in_s": 0}, "expires_in_s"),
    ],
)
async def test_a_wrong_request_for_a_key_names_its_field(api: Served, body: dict[str, object], param: str) -> None:
    async with api.client() as http:
        answer = await http.post("/v1/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_figures_are_open_here_and_need_the_operators_key_from_elsewhere(store: Store, api: Served) -> None:
    key, tenants = await key_for(store, Scope.READ), await key_for(store, Scope.ADMIN, tenant="acme")
    async with api.client() as http:
        assert (await http.get("/metrics")).status_code == 200
    async with api.client(address="10.0.0.9", url="http://ledger.internal") as http:
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers=bearer(key))).status_code == 200
        refused = await http.get("/metrics", headers=bearer(tenants))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_for_tenants")
        assert "'acme'" in refused.json()["error"]["message"]


async def test_the_secret_of_a_key_is_in_no_log_answer_representation_or_table(
    store: Store, api: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = new_key()
    record = await store.api_keys.add(made, tenant="default", name="canary", scopes=[Scope.READ], actor="test")
    secret = made.text.rpartition("_")[2]
    wrong = f"{made.text[:-1]}{'0' if made.text[-1] != '0' else '1'}"
    async with api.client() as http:
        answers = [
            await http.get(path, headers=bearer(key))
            for key in (made.text, wrong)
            for path in ("/try/read", "/try/admin")
        ]
    seen = "".join([repr(made), repr(record), *(each.text + str(each.headers) for each in answers)])
    seen += (
        str(await store.audit.entries())
        + str(await store.api_keys.find(made.id))
        + str(await api.context.redis.keys("*"))
    )
    assert record.hash not in seen
    assert secret[:-1] not in seen + caplog.text


async def test_a_tenants_limits_are_kept_and_its_acts_recorded(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("acme", 10, 20, 1.5), actor="command line")
    await store.tenants.set_limits(TenantLimits("acme", None, 30, 1.5), actor="command line")
    assert await store.tenants.limits() == [TenantLimits("acme", None, 30, 1.5)]
    assert (await store.tenants.use("acme", time.time())).limits == TenantLimits("acme", None, 30, 1.5)
    assert [each["action"] for each in await store.audit.entries("acme")] == ["tenant.set"] * 2


async def test_the_data_rules_of_a_tenant_are_kept_and_lifted(store: Store) -> None:
    ruled = TenantLimits("acme", 1, require={"region": ("ch", "eu")}, forbid={"zdr": ("false",)})
    await store.tenants.set_limits(ruled, actor="command line")
    assert await store.tenants.limits() == [ruled]
    assert await store.tenants.rules("acme") == Rules(ruled.require, ruled.forbid)
    await store.tenants.set_limits(TenantLimits("acme", 1), actor="command line")
    assert await store.tenants.rules("acme") == await store.tenants.rules("nobody") == NO_RULES


def connected(api: Served, be_known: Callable[[str | None], bool]) -> httpx.AsyncClient:
    """A client on a connection that the server counts."""

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"be_known": be_known}
        await api.app(scope, receive, send)

    transport = httpx.ASGITransport(with_state, client=("127.0.0.1", 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


async def test_a_tenant_with_too_many_requests_under_way_is_told_to_wait(store: Store, api: Served) -> None:
    key = await key_for(store, Scope.READ, tenant="rival")
    async with connected(api, lambda tenant: tenant != "rival") as http:
        answer = await http.get("/try/read", headers=bearer(key))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests_under_way")
    assert answer.headers["retry-after"] == "5"


async def test_callers_that_need_no_key_may_take_all_places(api: Served) -> None:
    async with connected(api, lambda tenant: tenant is None) as http:
        assert (await http.get("/try/read")).status_code == 200
