"""Allowed webhook targets: what a receiver's URL must look like, and which addresses are public.

    RefusedReceiver     one sentence, without the user, the password or the path of the URL

A receiver's host name is judged by its addresses when it is called (`worker.webhooks.guard`); what can be judged by the
URL alone is rejected on submission.
"""

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

from understudy.models.config.settings import WebhookSettings
from understudy.models.this_machine import is_this_machine

MAX_URL = 2_048

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' private addresses, and a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services, seen from its machines
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

PUBLIC_6 = IPv6Network("2000::/3")
"""Everything in use on the internet. Outside are loopback, private, link-local and multicast addresses, NAT64, and
IPv4-mapped addresses."""

NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID and other protocols
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)

NAME = re.compile(rb"(?=.{1,253}\.?\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
"""What a DNS server can be asked for."""

NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


class RefusedReceiver(ValueError):
    """Webhooks are not sent to this receiver."""


def is_public(address: Address) -> bool:
    """Whether an address is public on the internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    return address.scope_id is None and address in PUBLIC_6 and not any(address in each for each in NOT_PUBLIC_6)


def is_allowed(address: Address, port: int, settings: WebhookSettings) -> bool:
    """Whether webhooks may go to this address and port: public addresses on the usual ports, and the operator's
    networks."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    networks: Sequence[Network] = settings.allow_networks
    if any(address.version == network.version and address in network for network in networks):
        return True
    return port in settings.allow_ports and is_public(address)


def receiver_url(url: str) -> httpx.URL:
    """A receiver's URL, parsed by the library that will send to it. Raises RefusedReceiver."""
    if len(url) > MAX_URL:
        raise RefusedReceiver(f"is longer than {MAX_URL:,} characters")
    if not url.isprintable() or " " in url or "\\" in url:
        raise RefusedReceiver("contains a space, a backslash or a control character")
    try:
        parsed = httpx.URL(url)
        port = port_of(parsed)
        host = parsed.host  # invalid internationalized names are noticed here
    except (httpx.InvalidURL, ValueError):
        raise RefusedReceiver("is not a URL") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise RefusedReceiver("must begin with https:// or http:// and name a host")
    if parsed.userinfo:
        raise RefusedReceiver("contains a user or a password; receivers authenticate webhooks by their signature")
    if not 0 < port < 65_536:
        raise RefusedReceiver("has a port that does not exist")
    if literal_address(parsed) is None and not NAME.fullmatch(parsed.raw_host):
        raise RefusedReceiver("has a host name that no DNS server can know")
    if literal_address(parsed) is None and NUMBER.fullmatch(_last_label(parsed)):
        raise RefusedReceiver("has a number as its host; write an address as four decimal numbers")
    return parsed


def literal_address(url: httpx.URL) -> Address | None:
    """The address in a URL, or None if it has a host name that must be looked up."""
    try:
        return ipaddress.ip_address(url.host)
    except ValueError:
        return None


def port_of(url: httpx.URL) -> int:
    if url.port is not None:
        return url.port
    return 443 if url.scheme == "https" else 80


def check_receiver(url: str, settings: WebhookSettings) -> None:
    """Reject what no DNS lookup could fix: a malformed URL, an address or port that is not allowed.

    Raises RefusedReceiver. Pure: makes no DNS queries.
    """
    parsed = receiver_url(url)
    address, port = literal_address(parsed), port_of(parsed)
    if address is not None:
        if not is_allowed(address, port, settings):
            raise RefusedReceiver(refusal(parsed, port, settings))
    elif is_this_machine(parsed.host) and not settings.allow_networks:
        raise RefusedReceiver(refusal(parsed, port, settings))
    elif port not in settings.allow_ports and not settings.allow_networks:
        raise RefusedReceiver(f"has port {port}; allowed ports are {_listed(settings)} (webhooks.allow_ports)")


def refusal(url: httpx.URL, port: int, settings: WebhookSettings) -> str:
    return (
        f"is not an allowed address: {url.host} port {port} is private, reserved or not on one of the "
        f"ports {_listed(settings)}; an operator can allow it with webhooks.allow_networks"
    )


def _last_label(url: httpx.URL) -> str:
    return url.host.rstrip(".").rpartition(".")[2]


def _listed(settings: WebhookSettings) -> str:
    return ", ".join(str(port) for port in settings.allow_ports)
