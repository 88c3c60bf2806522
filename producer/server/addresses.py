"""Addresses that a server listens on, and callers come from."""

from ipaddress import IPv6Address, ip_address

from understudy.models.errors import WrongUse


class AddressUnusable(WrongUse):
    """The address cannot be listened on. One sentence."""


def is_loopback(host: str) -> bool:
    """An address of this machine only, or the name of one."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
