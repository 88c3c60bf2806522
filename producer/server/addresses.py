"""Addresses of servers and callers."""

from ipaddress import IPv6Address, ip_address


def is_loopback(host: str) -> bool:
    """Whether this is a loopback address or `localhost`."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
