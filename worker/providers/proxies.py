"""Which proxy a URL goes through, by the environment variables that everybody uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.request import getproxies_environment, proxy_bypass_environment

import httpx


@dataclass(frozen=True, slots=True)
class Proxies:
    """`variables` maps a scheme, `all` or `no` to the value of its variable."""

    variables: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> Self:
        return cls(getproxies_environment())

    def for_url(self, url: httpx.URL) -> str | None:
        """The proxy's URL, or None for a direct connection.

        This machine itself is always reached directly: a proxy elsewhere has another localhost. Raises ProxyError for a
        proxy that we cannot use.
        """
        proxy = self.variables.get(url.scheme) or self.variables.get("all")
        if not proxy or _is_this_machine(url.host):
            return None
        host = f"{url.host}:{url.port}" if url.port else url.host
        if proxy_bypass_environment(host, dict(self.variables)):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.startswith(("http://", "https://")):
            raise httpx.ProxyError(
                f"The environment names a proxy for {url.scheme} that speaks neither http nor https; "
                "set HTTPS_PROXY to an http:// proxy, or NO_PROXY."
            )
        return proxy


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
