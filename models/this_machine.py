"""Which hosts are the machine that this process runs on."""

from ipaddress import IPv6Address, ip_address


def is_loopback(host: str) -> bool:
    """Whether this is a loopback address or `localhost`: what a server may listen on for this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a client that calls this host reaches its own machine: also by a name below `.localhost`."""
    name = host.rstrip(".").lower()
    return is_loopback(name) or name.endswith(".localhost")
