"""Which proxy a URL goes through."""

import httpx
import pytest

from understudy.worker.providers.proxies import Proxies, proxy_at

BOTH = {"http": "http://plain:1", "https": "secure:2", "all": "http://rest:3"}


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        (BOTH, "http://a.test/v1", "http://plain:1"),
        (BOTH, "https://a.test/v1", "http://secure:2"),
        ({"all": "http://rest:3"}, "https://a.test/v1", "http://rest:3"),
        ({}, "https://a.test/v1", None),
        (BOTH, "http://localhost:11434/v1", None),
        (BOTH, "http://127.0.0.1:11434/v1", None),
        (BOTH, "http://[::1]:11434/v1", None),
        (BOTH, "http://[::ffff:127.0.0.1]:11434/v1", None),
        (BOTH, "http://ollama.localhost.:11434/v1", None),
        (BOTH, "http://localhost.test/v1", "http://plain:1"),
        (BOTH | {"no": "*"}, "https://a.test/v1", None),
        (BOTH | {"no": "b.test, A.test"}, "https://api.a.test/v1", None),
        (BOTH | {"no": ".a.test"}, "https://api.a.test/v1", None),
        (BOTH | {"no": "a.test"}, "https://not-a.test/v1", "http://secure:2"),
        (BOTH | {"no": "a.test:8443"}, "https://a.test:8443/v1", None),
        (BOTH | {"no": "a.test:8443"}, "https://a.test/v1", "http://secure:2"),
        (BOTH | {"no": "10.0.0.0/8"}, "http://10.1.2.3/v1", None),
        (BOTH | {"no": "10.0.0.0/8"}, "http://11.1.2.3/v1", "http://plain:1"),
        (BOTH | {"no": ","}, "http://a.test/v1", "http://plain:1"),
    ],
)
def test_the_proxy_of_a_url(variables: dict[str, str], url: str, proxy: str | None) -> None:
    assert Proxies(variables).for_url(httpx.URL(url)) == proxy


def test_a_proxys_password_is_in_its_header_and_not_in_its_url() -> None:
    proxy = proxy_at("http://user:p%40ss@host:3128")
    assert str(proxy.url) == "http://host:3128"
    assert proxy.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
