"""The guard where the connection is made: the address that was checked is the one that is called. Real servers, and
names that lie."""

import asyncio
import resource
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from webhook_help import receiver

from understudy.models.config.settings import WebhookSettings
from understudy.worker.webhooks.sender import MAX_ANSWER_BYTES, Answer, Sender

LOOPBACK = WebhookSettings(allow_networks=("127.0.0.0/8",))


class Names:
    """A name server that gives the next of its answers to each look-up."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0)


async def post(url: str, settings: WebhookSettings = LOOPBACK, **words: Any) -> Answer:
    async with Sender(settings, 2, **{"deadline_s": 5.0, **words}) as sender:
        return await sender.post(url, {"webhook-id": "evt_1"}, b"{}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost.", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
async def test_no_spelling_of_this_machine_reaches_it(host: str) -> None:
    async with receiver() as there:
        every_port = WebhookSettings(allow_ports=(there.port,))
        answer = await post(f"http://{host}:{there.port}/", every_port)
        assert answer.status is None and answer.error
        assert not there.got


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0"])
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async with receiver() as there:
        every_port = WebhookSettings(allow_ports=(there.port,))
        answer = await post(f"http://hooks.example.com:{there.port}/", every_port, resolve=Names([address]))
        assert answer.status is None and "is not an allowed address" in str(answer.error)
        assert not there.got


async def test_a_name_is_looked_up_once_so_rebinding_gains_nothing() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with receiver() as there:
        answer = await post(f"http://hooks.example.com:{there.port}/", resolve=names)
        assert answer.status == 204 and names.asked == 1
        assert there.got[0].headers["host"] == f"hooks.example.com:{there.port}"


async def test_of_several_addresses_only_allowed_ones_are_called() -> None:
    async with receiver() as there:
        names = Names(["10.0.0.1", "::1", "127.0.0.1"])
        answer = await post(f"http://hooks.example.com:{there.port}/", resolve=names)
        assert answer.status == 204


async def test_an_ipv6_literal_that_is_allowed_is_called() -> None:
    async with receiver(host="::1") as there:
        answer = await post(f"http://[::1]:{there.port}/", WebhookSettings(allow_networks=("::1/128",)))
        assert answer.status == 204 and there.got[0].headers["host"] == f"[::1]:{there.port}"


async def test_the_guard_stands_before_every_port_but_the_allowed() -> None:
    answer = await post("http://hooks.example.com:6379/", WebhookSettings(), resolve=Names(["1.1.1.1"]))
    assert "is not an allowed address" in str(answer.error)


async def test_proxy_variables_are_not_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy, receiver() as there:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await post(there.url)).status == 204
        assert len(there.got) == 1 and not proxy.got


async def test_tls_verifies_the_name_and_not_the_address(tmp_path: Path) -> None:
    server, client = certificates(tmp_path, "hooks.example.com")
    async with receiver(tls=server) as there:
        good = await post(f"https://hooks.example.com:{there.port}/", resolve=Names(["127.0.0.1"]), tls=client)
        assert good.status == 204
        bad = await post(f"https://other.example.com:{there.port}/", resolve=Names(["127.0.0.1"]), tls=client)
        assert bad.error == "no trusted TLS connection could be made"
        unknown = await post(f"https://hooks.example.com:{there.port}/", resolve=Names(["127.0.0.1"]))
        assert unknown.error == "no trusted TLS connection could be made"
        assert len(there.got) == 1


async def test_a_server_that_drips_is_cut_off_at_the_deadline() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1_000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with receiver(behaviour=drip) as there:
        began = time.monotonic()
        answer = await post(there.url, deadline_s=0.5)
        assert time.monotonic() - began < 3
        assert answer.status is None and "within 0.5 s" in str(answer.error)


async def test_of_a_huge_answer_only_the_beginning_is_read() -> None:
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
        for _ in range(1_024):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1 << 20

    async with receiver(behaviour=flood) as there:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = await post(there.url, deadline_s=20)
        assert answer.status == 200
        assert sent < 64 * MAX_ANSWER_BYTES * 4
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200\r\n" + b"a: b\r\n" * 100_000, b""])
async def test_what_is_not_http_is_a_failed_try(said: bytes) -> None:
    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    async with receiver(behaviour=speak) as there:
        answer = await post(there.url)
        assert answer.status is None and answer.error


async def test_a_closed_port_and_an_unknown_name_are_failed_tries() -> None:
    async with receiver() as there:
        gone = there.url
    assert (await post(gone)).error == "no connection could be made"
    assert (await post("http://nobody.invalid/")).error == "the name cannot be resolved"


def certificates(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for a name, and a client's that trusts it."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}".split()
    words += ["-keyout", str(key), "-out", str(certificate), "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))


def everywhere(address: str) -> Any:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return [address]

    return resolve


async def test_many_names_that_lead_to_one_address_share_its_places_by_tenant() -> None:
    """Any number of names costs a caller nothing, and their address may be someone else's."""
    gate = asyncio.Event()

    async def hold(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")
        await writer.drain()

    settings = WebhookSettings(allow_networks=("127.0.0.0/8",), max_in_flight=2)
    async with receiver(behaviour=hold) as there, Sender(settings, 50, resolve=everywhere("127.0.0.1")) as sender:

        def begin(tenant: str, count: int) -> list[asyncio.Task[Answer]]:
            urls = [f"http://{tenant}-{number}.example.com:{there.port}/" for number in range(count)]
            return [asyncio.create_task(sender.post(url, {}, b"{}", tenant)) for url in urls]

        rivals = begin("rival", 20)
        await until(lambda: there.at_once == 4)
        calm = begin("calm", 1)
        await until(lambda: there.at_once == 5)
        gate.set()
        answers = await asyncio.gather(*rivals, *calm)
    assert {each.status for each in answers} == {204}
    assert there.most_at_once == 5, "twice as many as one name may have, and the other tenant's"


async def test_who_finds_no_place_at_an_address_was_not_tried_and_had_all_its_time() -> None:
    async def never(_: Any) -> None:
        await asyncio.sleep(60)

    settings = WebhookSettings(allow_networks=("127.0.0.0/8",), max_in_flight=1)
    async with receiver(behaviour=never) as there:
        resolve = everywhere("127.0.0.1")
        async with Sender(settings, 9, resolve=resolve, deadline_s=0.5) as sender:
            url = f"http://x.example.com:{there.port}/"
            answers = await asyncio.gather(*(sender.post(url, {}, b"{}", "rival") for _ in range(5)))
            assert [each.untried for each in answers].count(False) >= 2
            assert all(each.untried or "did not finish" in str(each.error) for each in answers)


async def test_a_look_up_that_outlasts_its_try_counts_for_its_tenant_until_it_is_over() -> None:
    gate = asyncio.Event()

    async def resolve(host: str, port: int) -> Sequence[str]:
        await gate.wait()
        raise OSError

    async with Sender(LOOPBACK, 2, resolve=resolve, deadline_s=0.1) as sender:
        answer = await sender.post("http://slow.example.com/", {}, b"{}", "rival")
        assert "did not finish" in str(answer.error)
        assert sender.late == {"rival": 1}
        gate.set()
        await until(lambda: not sender.late)


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0.01)
