"""The proxy for a URL, from the usual environment variables."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Self
from urllib.request import getproxies_environment

import httpx

from understudy.models.this_machine import is_this_machine


def proxy_at(address: str) -> httpx.Proxy:
    """The proxy at an address such as `http://user:password@host:3128`, its password in a header instead."""
    url = httpx.URL(address)
    if not url.userinfo:
        return httpx.Proxy(url)
    credentials = b64encode(f"{url.username}:{url.password}".encode()).decode()
    return httpx.Proxy(url.copy_with(userinfo=b""), headers={"proxy-authorization": f"Basic {credentials}"})


@dataclass(frozen=True, slots=True)
class Proxies:
    """`variables` maps a scheme, `all` or `no` to the value of its variable."""

    variables: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> Self:
        return cls(getproxies_environment())

    def for_url(self, url: httpx.URL) -> str | None:
        """The proxy's URL, or None for a direct connection.

        This machine itself is always reached directly: a proxy elsewhere has another localhost. Raises ProxyError for
        an unsupported proxy.
        """
        proxy = self.variables.get(url.scheme) or self.variables.get("all")
        if not proxy or is_this_machine(url.host):
            return None
        exempt = (entry.strip().lower() for entry in self.variables.get("no", "").split(","))
        if any(_covers(entry, url) for entry in exempt if entry):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.startswith(("http://", "https://")):
            raise httpx.ProxyError(
                f"The environment names a proxy for {url.scheme} that speaks neither http nor https; "
                "set HTTPS_PROXY to an http:// proxy, or NO_PROXY."
            )
        return proxy


def _covers(entry: str, url: httpx.URL) -> bool:
    """Whether an entry of NO_PROXY (`*`, a domain, a host with a port, an address, a network) covers a URL."""
    host = url.host.lower()
    if "/" in entry:
        return _is_within(host, entry)
    domain = entry.removeprefix("*").removeprefix(".")
    return not domain or domain in (host, f"{host}:{url.port}") or host.endswith(f".{domain}")


def _is_within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
