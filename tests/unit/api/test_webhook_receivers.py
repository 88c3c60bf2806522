"""Which URLs and addresses webhooks may go to, decided without asking a name server."""

from ipaddress import ip_address

import pytest

from understudy.models.config.settings import WebhookSettings
from understudy.models.webhook_receivers import RefusedReceiver, check_receiver, is_allowed, is_public

DEFAULT = WebhookSettings()
INSIDE = WebhookSettings(allow_networks=("10.1.0.0/16", "fd00:1::/32"))

PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1
100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::1 2002:808:808::1
3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 2606:4700::1111%eth0 fec0::1 ff02::1 ff0e::1
""".split()

PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 172.15.0.1 172.32.0.1 100.128.0.1 2606:4700::1111 2a00:1450:4001::200e".split()


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_everybodys_is_refused_on_every_port(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not any(is_allowed(ip_address(address), port, DEFAULT) for port in (80, 443, 8080, 8443, 6379))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed_on_the_usual_ports_only(address: str) -> None:
    assert is_allowed(ip_address(address), 443, DEFAULT)
    assert not any(is_allowed(ip_address(address), port, DEFAULT) for port in (22, 25, 5432, 6379))


def test_an_operators_network_is_allowed_on_any_port_and_no_other_network() -> None:
    assert is_allowed(ip_address("10.1.2.3"), 9_999, INSIDE)
    assert is_allowed(ip_address("fd00:1::5"), 9_999, INSIDE)
    for outside in ("10.2.0.1", "::ffff:10.1.2.3", "fd00:2::1", "127.0.0.1", "fd00:1::5%eth0"):
        assert not is_allowed(ip_address(outside), 80, INSIDE)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fe80::1%25eth0]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://a.localhost/",
        "http://user@hooks.example.com/",
        "http://user:secret@hooks.example.com/",
        "http://hooks.example.com@127.0.0.1/",
        "http://127.0.0.1#@hooks.example.com/",
        "http://127.0.0.1\\@hooks.example.com/",
        "http://hooks.example.com:22/",
        "http://hooks.example.com:0/",
        "http://hooks.example.com:99999/",
        "http://hooks.example.com:-1/",
        "http://hooks example.com/",
        "http://hooks.example.com/\r\nX-Evil: 1",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "http://127\u3002 0\u30020\u30021/",
        "http://xn--a/",
        "http://xn--/",
        "http://xn--zzzzzzzzzz99999/",
        "http://a..b/",
        "http://.a/",
        "http://%zz/",
        "http://%00/",
        "http://*.example.com/",
        f"http://{'a' * 64}.example.com/",
        f"http://{'a.' * 127}com/",
        "http://\u2100.example.com/",
        "http://a\u200db.example.com/",
        "http://\u3002/",
        "http://\udc80/",
        "http://[v1.x]/",
        "http://[::1",
        "http://256.1.1.1/",
        "http://a:b:c/",
        "http://a:99999999999999999999/",
        "http:///nothing",
        "http:127.0.0.1",
        "//hooks.example.com/",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "javascript:alert(1)",
        "http://[::1",
        "http://" + "a" * 3_000 + ".example.com/",
        "",
    ],
)
def test_what_no_look_up_could_make_good_is_refused_when_it_is_submitted(url: str) -> None:
    with pytest.raises(RefusedReceiver) as refused:
        check_receiver(url, DEFAULT)
    assert "secret" not in str(refused.value) and "passwd" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/done?x=1",
        "http://hooks.example.com:8080/",
        "https://xn--bcher-kva.example/",
        "https://b\u00fccher.example/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "https://prod-01.westeurope.logic.azure.com:443/workflows/a/runs/b?sig=c%2Fd",
    ],
)
def test_what_may_be_good_is_taken(url: str) -> None:
    check_receiver(url, DEFAULT)


def test_an_operator_may_allow_this_machine() -> None:
    loopback = WebhookSettings(allow_networks=("127.0.0.0/8",))
    check_receiver("http://127.0.0.1:5678/webhook", loopback)
    check_receiver("http://localhost:5678/webhook", loopback)
    with pytest.raises(RefusedReceiver):
        check_receiver("http://169.254.169.254/", loopback)
