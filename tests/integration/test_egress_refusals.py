"""What no sandbox gets past the egress proxy, on an internet where all of it would answer."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import internet as place
from tests.support.internet import Internet, internet, until
from tests.support.proxies import Control, RunningProxy, a_proxy, everything, install
from tests.support.servers import Server, mute, with_tls

pytestmark = pytest.mark.once  # the proxy is a program for itself

GOOD = "198.51.100.7"
POST = b"POST http://good.test/ HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
GET = b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n"


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer("good.test", GOOD)
        yield made


@pytest.fixture(scope="module")
def server(net: Internet) -> Server:
    return net.serve(GOOD, 80)


@pytest.fixture(scope="module")
def proxy(net: Internet, module_dir: Path) -> Iterator[RunningProxy]:
    (module_dir / "way").mkdir()
    with a_proxy(net, module_dir / "way", install(module_dir / "egress")) as made:
        yield made


@pytest.fixture(scope="module")
def control(proxy: RunningProxy) -> Iterator[Control]:
    made = proxy.control()
    made.rules("good.test", "*.good.test", "good.test:8443", "evil.test")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def it_still_works(server: Server, proxy: RunningProxy, control: Control) -> Iterator[None]:
    """After each attempt what is allowed passes, and nothing else was heard by the server."""
    proxy.forget()
    yield
    assert proxy.ask(GET + b"\r\n").startswith(b"HTTP/1.1 200 ")
    until(lambda: server.heard)
    server.heard.clear()
    server.peers.clear()


@pytest.mark.parametrize(
    "name",
    [
        *("198.51.100.7", "198.51.100.7.", "3325256711", "0xc6336407", "0306.063.0144.07"),
        *("198.51.25607", "127.0.0.1", "127.1", "0", "[::1]", "[::ffff:198.51.100.7]"),
        *("[2001:db8::7]", "good.test%00", "good.test\0", "good.test\0.evil.test", "a@good.test"),
        *("good.test%2e", "g\u043e\u043ed.test", "good\u3002test", "good..test", "-good.test"),
    ],
)
@pytest.mark.parametrize("form", ["CONNECT {}:443", "GET http://{}/"])
def test_what_is_no_name_is_refused(
    proxy: RunningProxy, server: Server, name: str, form: str
) -> None:
    first = form.format(name).encode()
    answer = proxy.ask(first + b" HTTP/1.1\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 "))
    assert b"\r\n\r\ncsb-mcp: " in answer
    proxy.logged(verdict="forbidden")
    assert not server.peers


REFUSED = (
    *("127.0.0.1", "::1", "0.0.0.0", place.NEIGHBOUR, place.HOST_PRIVATE, place.METADATA),
    *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.0.8", "198.18.0.1"),
    *("168.63.129.16", "240.0.0.1", "192.88.99.1", "fd00::1", "fe80::1", "fec0::1"),
    *("::ffff:10.9.8.9", "::ffff:127.0.0.1", "64:ff9b::a09:809", "64:ff9b::7f00:1"),
    *("64:ff9b:1::1", "2002:a09:809::1", "2001:0:1::1", "100::1", place.HOST, place.HOST6),
    place.HOST_SECOND,
)


@pytest.mark.parametrize("address", REFUSED)
def test_a_name_that_leads_to_a_refused_address(
    net: Internet, proxy: RunningProxy, address: str
) -> None:
    own = (place.HOST, place.HOST_SECOND, place.HOST6, place.HOST_PRIVATE)
    mine = address in ("127.0.0.1", "::1", *own)
    reachable = address not in ("0.0.0.0", "fe80::1") and "ffff" not in address
    servers = [net.serve(address, 443, mute, on_host=mine)] if reachable else []
    if reachable:  # the control: it would answer
        net.host.connect(address, 443).close()
        until(lambda: servers[0].peers)
        servers[0].peers.clear()
    net.names.answer("a.good.test", address)
    try:
        client, answer = proxy.tunnel("a.good.test:443")
        client.close()
        assert answer.startswith(b"HTTP/1.1 403 ")
        why = str(proxy.logged(host="a.good.test", verdict="forbidden")["why"])
        assert why.startswith("its address ")
        assert not any(server.peers for server in servers)
    finally:
        for server in servers:
            server.close()


def test_of_several_addresses_only_the_good_ones_are_used(
    net: Internet, proxy: RunningProxy, server: Server
) -> None:
    inside = net.serve(place.NEIGHBOUR, 80)
    net.names.answer("b.good.test", place.NEIGHBOUR, GOOD, "127.0.0.1", "fd00::1")
    for _ in range(3):
        answer = proxy.ask(b"GET http://b.good.test/ HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert proxy.logged(host="b.good.test")["address"] == GOOD
    inside.close()
    assert not inside.peers


def test_a_name_that_changes_is_resolved_once(
    net: Internet, proxy: RunningProxy, server: Server
) -> None:
    inside = net.serve(place.NEIGHBOUR, 80)
    net.names.answer_in_turn("c.good.test", GOOD, place.NEIGHBOUR)
    asked = len(net.names.asked)
    answers = [proxy.ask(b"GET http://c.good.test/ HTTP/1.1\r\n\r\n")[:13] for _ in range(2)]
    assert answers == [b"HTTP/1.1 200 ", b"HTTP/1.1 403 "]
    assert net.names.asked[asked:].count(("c.good.test", "A")) == 2
    inside.close()
    assert not inside.peers


def test_an_alias_to_a_refused_address(net: Internet, proxy: RunningProxy) -> None:
    net.names.answer("d.good.test", CNAME="inner.test")
    net.names.answer("inner.test", place.METADATA)
    assert b" 403 " in proxy.ask(b"GET http://d.good.test/ HTTP/1.1\r\n\r\n")
    assert place.METADATA in str(proxy.logged(host="d.good.test")["why"])


def test_no_name_that_is_not_allowed_is_even_looked_up(net: Internet, proxy: RunningProxy) -> None:
    asked = len(net.names.asked)
    answer = proxy.ask(b"GET http://secret-in-a-name.evil.example/ HTTP/1.1\r\n\r\n")
    assert b"is not allowed. The supervisor has been asked" in answer
    proxy.logged(host="secret-in-a-name.evil.example", verdict="asked")
    assert net.names.asked[asked:] == []


@pytest.mark.parametrize("port", [22, 25, 53, 8080, 3128, 6000])
def test_other_ports_are_refused(net: Internet, proxy: RunningProxy, port: int) -> None:
    other = net.serve(GOOD, port, mute)
    client, answer = proxy.tunnel(f"good.test:{port}")
    client.close()
    assert answer.startswith(b"HTTP/1.1 403 ")
    proxy.logged(host="good.test", port=port, verdict="asked")
    other.close()
    assert not other.peers


SMUGGLED = (
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Content-Length: 1\r\nContent-Length: 30\r\n\r\nx",
    POST + b"Content-Length: 1, 1\r\n\r\nx",
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"X\0: y\r\n\r\n",
    b"GET http://good.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\nHost: evil.test\r\n\r\n",
    b"GET http://good.test/ HTTP/1.1\n\nGET http://evil.test/ HTTP/1.1\n\n",
    b"GET /x HTTP/1.1\r\nHost: good.test\r\n\r\n",
    b"GET https://good.test/ HTTP/1.1\r\n\r\n",
    b"GET http://good.test/ HTTP/1.1\r\nX: " + b"y" * (65 << 10) + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"\x05\x01\x00\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


@pytest.mark.parametrize("request_", SMUGGLED, ids=range(len(SMUGGLED)))
def test_a_request_that_could_be_read_in_two_ways(
    proxy: RunningProxy, server: Server, request_: bytes
) -> None:
    answer = proxy.ask(request_)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ", b"HTTP/1.1 431 "))
    proxy.logged(verdict="forbidden")
    assert not server.peers


@pytest.mark.parametrize(
    "body",
    [b"5;ext\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"0\r\nHost: x\r\n\r\n", b"5\n"],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_chunk_in_another_form_never_passes(
    proxy: RunningProxy, server: Server, body: bytes, late: bool
) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with proxy.connect() as client:
        client.sendall(head + (b"" if late else body))
        if late:
            until(lambda: server.peers)
            client.sendall(body)
        assert everything(client).startswith(b"HTTP/1.1 400 ")
    proxy.logged(host="good.test", verdict="forbidden")


def test_not_a_byte_behind_the_request_is_passed_on(proxy: RunningProxy, server: Server) -> None:
    second = b"GET http://evil.test/smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    proxy.ask(POST + b"Content-Length: 2\r\n\r\nok" + second)
    proxy.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second)
    proxy.ask(GET + b"\r\n" + second)
    until(lambda: len(server.heard) >= 3)
    assert not [heard for heard in server.heard if b"smuggled" in heard]
    assert proxy.logged(host="good.test")["why"] == "bytes behind the request were dropped"


@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\nok", b"\r\n", CHUNKED])
def test_nor_a_byte_that_comes_later(proxy: RunningProxy, server: Server, body: bytes) -> None:
    with proxy.connect() as client:
        client.sendall(POST + body[:-2])
        if body.endswith(b"ok"):
            until(lambda: server.peers)
        client.sendall(body[-2:])
        until(lambda: server.peers)
        client.sendall(b"GET http://evil.test/smuggled HTTP/1.1\r\n\r\n")
        assert everything(client).startswith(b"HTTP/1.1 200 ")
    until(lambda: server.heard)
    assert not [heard for heard in server.heard if b"smuggled" in heard]


def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (hello("evil.test"), "asks for evil.test"),
        (hello("sub.good.test"), "asks for sub.good.test"),
        (b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "not TLS"),
        (b"SSH-2.0-OpenSSH\r\n", "not TLS"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "not a TLS hello"),
    ],
)
@pytest.mark.parametrize("slow", [False, True])
def test_a_tunnel_to_443_begins_with_tls_for_that_host(
    net: Internet, proxy: RunningProxy, said: bytes, why: str, slow: bool
) -> None:
    secure = net.serve(GOOD, 443, mute)
    client, answer = proxy.tunnel("good.test:443")
    with client, secure:
        assert answer.startswith(b"HTTP/1.1 200 ")
        for piece in [said[:3], said[3:]] if slow else [said]:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(piece)
        assert everything(client) == b""
        assert why in str(proxy.logged(host="good.test", port=443, verdict="forbidden")["why"])
    assert secure.heard == []


def test_tls_passes_whether_or_not_it_names_its_host(net: Internet, proxy: RunningProxy) -> None:
    secure = net.serve(GOOD, 443, with_tls(net.certificate("good.test")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name in ("good.test", "GOOD.test", None):
        client, _ = proxy.tunnel("good.test:443")
        with context.wrap_socket(client, server_hostname=name) as inside:
            inside.sendall(b"GET /in HTTP/1.1\r\n\r\n")
            assert b'"/in"' in everything(inside)
    secure.close()


def test_the_door_takes_a_listener_and_nothing_else(proxy: RunningProxy) -> None:
    """What a payload may hold out: each is closed, and the way out stays open."""
    ours, theirs = socket.socketpair()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain = socket.socket()
    linger = proxy.connect()
    linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 9999))
    with ours, theirs, udp, plain, linger, open("/dev/zero", "rb") as zero:
        for one in (theirs, udp, plain, zero, linger):
            assert proxy.open(one.fileno()) == b"no\n"
        theirs.close()
        ours.settimeout(5)
        assert ours.recv(1) == b""  # nobody holds the other end any more
        assert proxy.open(*([zero.fileno()] * 100)) == b"no\n"
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    for one in listeners:
        one.setblocking(True)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 9999))
        assert proxy.open(one.fileno()) == b"ok\n"
        with socket.create_connection(one.getsockname(), 5) as client:
            client.sendall(GET + b"\r\n")
            assert everything(client).startswith(b"HTTP/1.1 200 ")
    assert proxy.open() == b"ok\n"  # the newest are kept
    for one in listeners:
        one.close()


def test_its_sockets_are_its_users_alone(proxy: RunningProxy) -> None:
    for path in (proxy.base / "door/door.sock", proxy.base / "control/control.sock"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_it_has_taken_powers_from_itself(proxy: RunningProxy) -> None:
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{proxy.process.pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core")]
    assert core[4:6] == ["0", "0"]
