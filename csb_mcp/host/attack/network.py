"""The network part of the attacks: what each mode must keep out."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil

from csb_mcp.host.attack.plants import Plants
from csb_mcp.host.attack.table import Attack
from csb_mcp.model import Sandbox

LOOPBACK = ("127.0.0.1", "::1")
# One address of each kind. Nobody's (RFC 5737, RFC 3849) stand for the internet.
INTERNET = ("198.51.100.9", "2001:db8::9")
RESOLVER = "169.254.1.53"  # its name inside, where only that port is open
PRIVATE = (
    RESOLVER,
    *("10.255.255.254", "100.127.255.254", "169.254.169.254", "172.31.255.254", "192.168.255.254"),
    *(
        "168.63.129.16",
        "192.0.0.9",
        "192.88.99.1",
        "198.19.255.254",
        "224.0.0.1",
        "255.255.255.254",
    ),
    *("fd00:ffff::9", "fe80::ffff", "fec0::9", "ff02::1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::c0a8:101", "64:ff9b::ac10:1", "64:ff9b::6440:1"),
    *(
        "2002:7f00:1::1",
        "2001::1",
        "100::1",
        "64:ff9b:1::1",
        "64:ff9b::a83f:8110",
        "64:ff9b::c000:9",
        "64:ff9b::c058:6301",
        "64:ff9b::c613:1",
        "64:ff9b::e000:1",
        "64:ff9b::f000:1",
        "64:ff9b::1",
        "::ffff:10.255.255.254",
        "2001:db8::5efe:10.0.0.1",
    ),
)
SPELLINGS = (
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ),
    *("169.254.169.254", "10.0.0.1", "192.168.0.1", "[fd00::1]", "[fe80::1]", "[64:ff9b::7f00:1]"),
)


def network_attacks(sandbox: Sandbox, plants: Plants) -> Iterator[Attack]:
    """Those that apply: with ``host`` the network is the host's, as was asked for."""
    mode = sandbox.spec.network
    for family, protocol in (("AF_INET", 1), ("AF_INET", 6), ("AF_PACKET", 768)):
        yield Attack("raw-sockets", ("raw", family, "SOCK_RAW", protocol))
    if mode == "host":
        return
    yield from _host(plants)
    if mode == "full":
        for address in (*PRIVATE, *neighbours()):
            yield Attack("private-networks", ("packet", address))
        # A gateway may be made to stand for the host itself.
        for gateway in gateways():
            for host, port, token in plants.servers:
                if host in LOOPBACK and (":" in host) == (":" in gateway):
                    yield Attack("host-loopback", ("tcp", gateway, port), token)
        return
    yield Attack("network-devices", ("interfaces",))
    for address in (*INTERNET, *PRIVATE):
        yield Attack("routes", ("route", address))
    if mode == "allowlist":
        yield from _proxy(plants)


def neighbours() -> list[str]:
    """One address in each network of this host's Ethernet links, whoever has it."""
    found: list[str] = []
    for device, entries in psutil.net_if_addrs().items():
        if not _is_ethernet(device):
            continue
        for entry in entries:
            with contextlib.suppress(ValueError):  # it has no netmask, or is of no such family
                plain = ipaddress.ip_interface(f"{entry.address}/{_size(entry.netmask)}")
                found += _beside(plain)
    return list(dict.fromkeys(found))


def _is_ethernet(device: str) -> bool:
    """As the launcher sees it (network.sh): if it cannot be known, it is."""
    try:
        return Path(f"/sys/class/net/{device}/type").read_text().strip() == "1"
    except OSError:
        return device != "lo"


def _size(mask: str | None) -> int:
    return int(ipaddress.ip_address(mask or "")).bit_count()


def _beside(own: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> Iterator[str]:
    least = 8 if own.version == 4 else 16
    room = own.max_prefixlen - own.network.prefixlen
    if room > 1 and own.network.prefixlen >= least and not own.is_link_local:
        other = own.network[1] if own.ip != own.network[1] else own.network[2]
        yield str(other)


def gateways() -> list[str]:
    """The host's next routers (proc(5), net/route; hexadecimal in the machine's own order)."""
    found: list[str] = []
    try:
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000" and fields[2] != "00000000":
                found.append(socket.inet_ntoa(bytes.fromhex(fields[2])[::-1]))
        for line in Path("/proc/net/ipv6_route").read_text().splitlines():
            fields = line.split()
            if fields[1] == "00" and int(fields[4], 16):
                found.append(str(ipaddress.IPv6Address(int(fields[4], 16))))
    except (OSError, IndexError, ValueError):
        pass
    return list(dict.fromkeys(found))


def _host(plants: Plants) -> Iterator[Attack]:
    for kind, places in (("tcp", plants.servers), ("udp", plants.datagrams)):
        for host, port, token in places:
            row = "host-loopback" if host in LOOPBACK else "host-addresses"
            yield Attack(row, (kind, host, port), token, control=True)


def _proxy(plants: Plants) -> Iterator[Attack]:
    """It must refuse these at once, and ask nobody for them."""
    for host, port, token in plants.servers:
        name = f"[{host}]" if ":" in host else host
        yield Attack("proxy", ("proxy", _connect(name, port)), token)
        yield Attack("proxy", ("proxy", _get(name, port)), token)
    for spelling in SPELLINGS:
        yield Attack("proxy", ("proxy", _connect(spelling, 443)))
        yield Attack("proxy", ("proxy", _get(spelling, 80)))


def _connect(host: str, port: int) -> str:
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"


def _get(host: str, port: int) -> str:
    return f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
