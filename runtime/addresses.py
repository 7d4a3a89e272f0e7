"""Group client addresses for limits."""

from ipaddress import IPv6Address, ip_address, ip_network


def network_of(address: str) -> str:
    """Return the key under which an address is counted: an IPv6 client's /64 network, which is what one customer gets.

    IPv4 addresses, including those mapped to IPv6, count individually. Other text is returned unchanged.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)
