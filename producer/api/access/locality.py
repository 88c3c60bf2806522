"""Whether a request comes from this machine, by ruling out what could make an outsider look local.

A proxy on this machine makes every caller look local, a DNS name pointed at this machine makes a web page look like a
local caller (DNS rebinding), and a local browser sends whatever a page makes it send. Each of them leaves traces in a
request, which are checked here. A proxy without traces cannot be detected: that is what `public_url` and keys are for.
"""

import re
from urllib.parse import urlsplit

from fastapi import Request

from understudy.models.config.settings import Settings
from understudy.models.this_machine import is_loopback

HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""A name or address, and a port. No user, path or blank, which other parsers may read differently."""

SHOWN_CHARS = 80

OF_A_PROXY = re.compile(
    r"(?:x-)?forwarded(?:-.*)?|via|x-original-.*|x-real-.*|x-host|x-scheme|x-url-scheme"
    r"|front-end-https|x-ssl-.*|ssl-client-.*|x-client-(?:cert|verify|dn|port).*"
    r"|max-forwards|early-data|surrogate-capability|proxy-.*|x-proxy.*"
    # the client's address: CF-Connecting-IP, True-Client-IP, X-Azure-ClientIP, X-Remote-Addr, X-Envoy-External-Address
    # …
    r"|(?:.*-)?(?:(?:client|remote|user|peer|socket|source|connecting)-?)?ip(?:v[46])?(?:-?addr(?:ess)?)?"
    r"|(?:.*-)?(?:client|remote|user|peer|source|external)-?addr(?:ess)?"
    r"|(?:cf|cdn|fastly|fly|akamai|incap|ngrok|tailscale|cloudfront|zscaler|x-zscaler|x-sucuri|x-azure|x-appengine)-.*"
    r"|x-(?:envoy|arr|amzn|varnish|nginx|haproxy|traefik|caddy|pomerium|authentik|webauth|auth-request)(?:-.*)?"
    r"|x-(?:amz-cf|goog-iap|goog-authenticated)-.*|(?:x-)?remote-user|x-remote-.*"
)
"""Headers that proxies and CDNs add, and API clients do not send."""

OWN_PAGES = ("same-origin", "none")
"""Values of Sec-Fetch-Site for requests from our own pages, and for addresses typed by a person."""


def why_not_local(request: Request) -> str | None:
    """None for a caller on this machine; otherwise the evidence against it, as a clause."""
    return _through_a_proxy(request) or _from_elsewhere(request) or _from_a_page(request)


def host_of(request: Request) -> str | None:
    """Host and port of the request, for use in links; None when invalid."""
    given = request.headers.getlist("host")
    return given[0] if len(given) == 1 and HOST.fullmatch(given[0]) else None


def _through_a_proxy(request: Request) -> str | None:
    for name in request.headers:
        if OF_A_PROXY.fullmatch(name.replace("_", "-")):
            return f"this request came through a proxy ({name[:SHOWN_CHARS]}), so it may come from anywhere"
    if request.scope["http_version"] == "1.0":
        return "this request is HTTP/1.0, as sent by proxies, so it may come from anywhere"
    return None


def _from_elsewhere(request: Request) -> str | None:
    if request.client is None or not is_loopback(request.client.host):
        return "only callers on the server's machine are served without one"
    host = host_of(request)
    if host is None or not is_loopback(urlsplit(f"//{host}").hostname or ""):
        shown = request.headers.get("host", "")[:SHOWN_CHARS]
        return f"only the names localhost, 127.0.0.1 and [::1] are served without one, not '{shown}'"
    return None


def _from_a_page(request: Request) -> str | None:
    own = f"{request.scope['scheme']}://{request.headers['host']}"
    origins = request.headers.getlist("origin")
    sites = request.headers.getlist("sec-fetch-site")
    if any(origin != own for origin in origins) or any(site not in OWN_PAGES for site in sites):
        return "this request was made by a web page of another origin"
    return None


def root_of(request: Request, settings: Settings) -> str:
    """The part of links before the path: as configured, or from the request."""
    if settings.api.public_url is not None:
        return settings.api.public_url
    host = host_of(request)
    return "" if host is None else f"{request.scope['scheme']}://{host}"  # a relative link is correct, too
