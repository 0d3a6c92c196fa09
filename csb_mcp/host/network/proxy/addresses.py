"""Which addresses nobody inside may reach, however their name is spelt or resolved.

Documentation ranges are nobody's, so nothing is lost by letting them pass. The launcher's rules for
network ``full`` (network.sh) say the same in nft's words; a test compares them.
"""

import _socket
import struct
import sys

NETS4 = (
    ("0.0.0.0", 8, "this network"),
    ("10.0.0.0", 8, "private"),
    ("100.64.0.0", 10, "shared by carriers"),
    ("127.0.0.0", 8, "loopback"),
    ("168.63.129.16", 32, "a cloud's own"),
    ("169.254.0.0", 16, "link-local"),
    ("172.16.0.0", 12, "private"),
    ("192.0.0.0", 24, "reserved"),
    ("192.88.99.0", 24, "a 6to4 relay"),
    ("192.168.0.0", 16, "private"),
    ("198.18.0.0", 15, "for benchmarks"),
    ("224.0.0.0", 4, "multicast"),
    ("240.0.0.0", 4, "reserved"),
)
NETS6 = (
    ("::", 128, "unspecified"),
    ("::1", 128, "loopback"),
    ("64:ff9b:1::", 48, "a local translator's"),
    ("100::", 64, "discarded"),
    ("2001::", 23, "a tunnel's or a protocol's own"),  # Teredo has 2001::/32
    ("2002::", 16, "6to4"),  # whose relays are gone (RFC 7526)
    ("fc00::", 7, "private"),
    ("fe80::", 10, "link-local"),
    ("fec0::", 10, "site-local"),
    ("ff00::", 8, "multicast"),
)
_NAT64 = "64:ff9b::"  # with /96: how a host of IPv6 alone reaches IPv4: by the address at the end
_NETLINK_ROUTE, _NLM_F_REQUEST, _RTA_DST = 0, 1, 1
_RTM_NEWROUTE, _RTM_GETROUTE, _RTN_UNICAST = 24, 26, 1
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of the interface's part


def _number(family: int, text: str) -> int:
    return int.from_bytes(_socket.inet_pton(family, text), "big")


def _table(family: int, nets: tuple[tuple[str, int, str], ...]) -> list[tuple[int, int, str]]:
    bits = 32 if family == _socket.AF_INET else 128
    return [(bits - size, _number(family, net) >> (bits - size), why) for net, size, why in nets]


_TABLE4, _TABLE6 = _table(_socket.AF_INET, NETS4), _table(_socket.AF_INET6, NETS6)
_INNER = _number(_socket.AF_INET6, _NAT64) >> 32


def refused(address: str) -> str:
    """Why that address is not connected to; empty if it may be. Not an address: refused, too."""
    try:
        if ":" not in address:
            return _why(_TABLE4, _number(_socket.AF_INET, address))
        return _refused6(_number(_socket.AF_INET6, address))
    except OSError:
        return "no address"


def _why(table: list[tuple[int, int, str]], number: int) -> str:
    return next((why for shift, net, why in table if number >> shift == net), "")


def _refused6(number: int) -> str:
    why = _why(_TABLE6, number)
    if why:
        return why
    if number >> 32 == _INNER:
        return _why(_TABLE4, number & 0xFFFFFFFF)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        return "ISATAP"
    return "" if number >> 125 == 1 else "reserved"  # 2000::/3 is the internet


def is_own(family: int, address: str) -> bool:
    """Whether it is one of this host's: the kernel would deliver there itself (rtnetlink(7)).

    Also if that cannot be found out, for want of a descriptor, say. (Where a connection would come
    from is no answer: for a second address of a network that is the first one.)
    """
    try:
        wanted = bytes_of(family, address)
    except OSError:
        return False  # no address
    message = struct.pack("BBBBBBBBI", family, 8 * len(wanted), 0, 0, 0, 0, 0, 0, 0)
    message += struct.pack("HH", 4 + len(wanted), _RTA_DST) + wanted
    head = struct.pack("IHHII", 16 + len(message), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    try:
        kernel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_ROUTE)
    except OSError:
        return True
    try:
        kernel.sendto(head + message, (0, 0))
        answer = kernel.recv(4096)
    except OSError:
        return True
    finally:
        kernel.close()
    # An error: there is no way there at all, and the connect will tell.
    kind = int.from_bytes(answer[4:6], sys.byteorder)
    return kind == _RTM_NEWROUTE and answer[16 + 7] != _RTN_UNICAST


def bytes_of(family: int, address: str) -> bytes:
    """Raises OSError."""
    return _socket.inet_pton(family, address)
