"""The table notices each protection of a network mode missing, in an internet of the test's own."""

import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from csb_mcp.host.attack.network import PRIVATE
from tests.support.attacked import SHIPPED, Edit
from tests.support.internet import internet

THERE = Path(__file__).parents[1] / "support" / "attack_there.py"
MORE = "192.0.2.77"  # an address of the host's that pasta does not take over, in no link's network
MORE6 = "2001:db8:7::77"
ALONE = "nodad noprefixroute"
LOCAL = {"0.0.0.0/8", "127.0.0.0/8"}  # never leave by an interface


def cut(text: str, new: str = "") -> Edit:
    return "network.sh", text, new


def box(text: str, new: str = "") -> Edit:
    return "egress.sh", text, new


ALTERED: dict[str, tuple[str, str, list[Edit]]] = {
    "full, whole": ("full", "", []),
    "full, without pasta": (
        "full",
        "namespaces host-loopback host-addresses abstract-sockets private-networks",
        [cut("[[ $network == full && -z $inside ]] || return 0", "return 0")],
    ),
    "full, the gateway is the host": (
        "full",
        "host-loopback",
        [cut(" --no-map-gw"), cut("ip daddr @near4 $reject\n"), cut("ip6 daddr @near6 $reject\n")],
    ),
    "full, the host's ports": ("full", "host-loopback", [cut(" -t none -u none -T none -U none")]),
    "full, no rules": (
        "full",
        "private-networks host-addresses",
        [cut('"$CSB_NFT" -f - <<<"$rules" || die', "true || die")],
    ),
    "full, the host's addresses": ("full", "host-addresses", [cut("$own4\n")]),
    "full, the host's addresses of IPv6": ("full", "host-addresses", [cut("$own6\n")]),
    "full, refused networks": (
        "full",
        "private-networks",
        [cut("ip daddr { $refused } $reject\n")],
    ),
    "full, refused networks of IPv6": (
        "full",
        "private-networks",
        [cut("ip6 daddr { $refused6 } $reject\n")],
    ),
    "full, IPv6 that is not the internet": (
        "full",
        "private-networks",
        [cut("ip6 daddr != { $internet6 } $reject\n")],
    ),
    "full, the networks of the host's links": (
        "full",
        "private-networks",
        [cut("ip daddr @near4 $reject\n")],
    ),
    "full, those networks of IPv6": (
        "full",
        "private-networks",
        [cut("ip6 daddr @near6 $reject\n")],
    ),
    "full, ISATAP": (
        "full",
        "private-networks",
        [cut("ip6 daddr & 0:0:0:0:fdff:ffff:: == 0:0:0:0:0:5efe:: $reject\n")],
    ),
    "full, the resolver's other ports": (
        "full",
        "private-networks",
        [cut("udp dport 53 accept", "accept")],
    ),
    "host, whole": ("host", "", []),
    "host, abstract sockets": (
        "host",
        "abstract-sockets",
        [cut('host) around=("$CSB_PYTHON" -I -S "$CSB_SHARE/scope.py")', "host) :")],
    ),
    "none, whole": ("none", "", []),
    "allowlist, whole": ("allowlist", "", []),
    "allowlist, the network": (
        "allowlist",
        "namespaces host-loopback host-addresses abstract-sockets network-devices routes",
        [cut("none | allowlist) args+=(--unshare-net)", "none | allowlist) :")],
    ),
    "allowlist, the way to the proxy is read-only": (
        "allowlist",
        "own-files mounts",
        [cut('--ro-bind "$egress_dir"', '--bind "$egress_dir"')],
    ),
    "proxy, ipc namespace": ("allowlist", "egress-proxy", [box("--unshare-ipc ")]),
    "proxy, uts namespace": (
        "allowlist",
        "egress-proxy",
        [box("--unshare-uts "), box("--hostname egress ")],
    ),
    "proxy, cgroup namespace": ("allowlist", "egress-proxy", [box(" --unshare-cgroup-try")]),
    "proxy, pid namespace": ("allowlist", "egress-proxy", [box("--unshare-pid --as-pid-1 ")]),
    "proxy, the filter": ("allowlist", "egress-proxy", [box(" --seccomp 7")]),
    "proxy, the root is read-only": ("allowlist", "egress-proxy", [box("--remount-ro / ")]),
    "proxy, its program is read-only": (
        "allowlist",
        "egress-proxy",
        [box('--ro-bind "$CSB_EGRESS"', '--bind "$CSB_EGRESS"')],
    ),
    "proxy, files of the host": (
        "allowlist",
        "egress-proxy",
        [box("root_args args\n", "root_args args\nargs+=(--ro-bind /var /var)\n")],
    ),
    "proxy, its own folders alone": (
        "allowlist",
        "egress-proxy",
        [box('--bind "$log" /run/csb/log', '--bind "${log%/*}" /run/csb/log')],
    ),
    "proxy, open files": (
        "allowlist",
        "egress-proxy",
        [box("close_others 7\n"), box("ulimit -c 0\n", "ulimit -c 0\nexec 5</var\n")],
    ),
}


# All of them as a normal user, too, would take a minute more and say the same: so only two that are
# whole, and the one that depends on when pasta looks.
TWICE = ("full, whole", "full, the host's ports", "allowlist, whole")


def params() -> Iterator[object]:
    for name in ALTERED:
        marks = [] if name in TWICE else [pytest.mark.once]
        if name == "proxy, open files":  # shown to root alone: it lets nobody look
            marks.append(pytest.mark.root)
        yield pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def there() -> Iterator["subprocess.Popen[str]"]:
    """Who makes sandboxes in that network and attacks them: one process, for it starts slowly."""
    with internet() as net:
        net.host.ip(f"addr add {MORE}/32 dev lan\naddr add {MORE6}/128 dev lan {ALONE}\n")
        words = [*net.prefix, sys.executable, str(THERE)]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
            yield process
            assert process.stdin
            process.stdin.close()
            process.wait(20)


def told(
    there: "subprocess.Popen[str]", base: Path, edits: list[Edit], network: str
) -> dict[str, list[str]]:
    assert there.stdin
    assert there.stdout
    asked = {"base": str(base), "edits": edits, "network": network}
    print(json.dumps(asked), file=there.stdin, flush=True)
    return json.loads(there.stdout.readline())


@pytest.mark.parametrize("name", list(params()))
def test_each_protection_is_missed(
    name: str, there: "subprocess.Popen[str]", short_dir: Path
) -> None:
    network, rows, edits = ALTERED[name]
    table = told(there, short_dir, edits, network)
    broken = {key: detail for key, (outcome, detail) in table.items() if outcome == "broken"}
    assert set(rows.split()) <= set(broken) if rows else broken == {}, broken


def test_each_refused_network_has_an_attack() -> None:
    """So that one that is left out is noticed."""
    text = (SHIPPED / "network.sh").read_text()
    lists = re.findall(r"^REFUSED6?=\(\n(.*?)^\)", text, re.DOTALL | re.MULTILINE)
    attacked = [ipaddress.ip_address(address) for address in PRIVATE]
    for word in " ".join(lists).split():
        if word not in LOCAL:
            network = ipaddress.ip_network(word)
            assert any(address in network for address in attacked), word
