"""What the egress proxy reads from inside: strictly, and alike in however many pieces."""

import json
import re
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as some

from csb_mcp.host.launchers import sources
from csb_mcp.host.network.proxy import addresses
from csb_mcp.host.network.proxy.addresses import is_own, refused
from csb_mcp.host.network.proxy.bodies import Chunked, Counted
from csb_mcp.host.network.proxy.heads import CHUNKED, RefusedError, parsed
from csb_mcp.host.network.proxy.hello import asked_host
from csb_mcp.host.network.proxy.lines import decoded, encoded

DOCUMENTATION = ip_network("2001:db8::/32")
DOCUMENTATION4 = [ip_network(f"{net}.0/24") for net in ("192.0.2", "198.51.100", "203.0.113")]


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255"),
        *("127.0.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
        *("192.0.0.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::7f00:1", "::10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
        *("::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1"),
        *("2002:a00:1::", "2002:7f00:1::1", "2002:c0a8:101:1::1", "2001::1", "2001:0:53aa::1"),
        *("fc00::1", "fd12:3456::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1"),
        *("100::1", "2001:db8::5efe:10.0.0.1", "2001:db8::200:5efe:192.168.0.1"),
        *("::198.51.100.7", "::ffff:198.51.100.7", "::ffff:0:198.51.100.7", "2002:c633:6407::1"),
        *("2001:db8::5efe:198.51.100.7", "1fff::1", "4000::1", "200::1", "400::1", "5f00::1"),
        *("127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4 ", "fe80::1%lo", "", "example.org"),
    ],
)
def test_an_address_of_nobody_outside_is_refused(address: str) -> None:
    assert refused(address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.0.0.1"),
        *("128.0.0.1", "169.253.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.167.0.1"),
        *("198.17.0.1", "198.20.0.1", "223.255.255.255", "168.63.129.15"),
        *("198.51.100.7", "192.0.2.1", "203.0.113.2", "2001:db8::1", "2606:4700::1111"),
        *("64:ff9b::198.51.100.7", "2000::1", "3fff:ffff::1"),
    ],
)
def test_others_pass(address: str) -> None:
    assert not refused(address)


@given(some.ip_addresses(v=6) | some.ip_addresses(network="2000::/3"))
def test_no_ipv6_address_that_is_not_of_the_internet_passes(address: IPv6Address) -> None:
    if not address.is_global and address not in DOCUMENTATION:
        assert refused(str(address))


def test_the_rules_of_network_full_refuse_the_same() -> None:
    text = (sources() / "network.sh").read_text()
    lists = dict(re.findall(r"^([A-Z]+6?)=\(([^)]*)\)", text, re.MULTILINE))
    shell = {name: {*map(ip_network, words.split())} for name, words in lists.items()}
    nets4 = {ip_network(f"{net}/{size}") for net, size, _ in addresses.NETS4}
    nets6 = {ip_network(f"{net}/{size}") for net, size, _ in addresses.NETS6}
    nat64 = {ip_network(f"64:ff9b::{net[0]}/{96 + net.prefixlen}") for net in nets4}
    internet = ip_network("2000::/3")
    assert shell["REFUSED"] == nets4
    assert shell["REFUSED6"] == nat64 | {net for net in nets6 if net.overlaps(internet)}
    assert shell["INTERNET6"] == {internet, ip_network("64:ff9b::/96")}


@given(some.ip_addresses(v=4))
def test_no_ipv4_address_that_is_not_of_the_internet_passes(address: IPv4Address) -> None:
    documentation = any(address in net for net in DOCUMENTATION4)
    six_to_four = str(IPv6Address(0x2002 << 112 | int(address) << 80))
    carried = (six_to_four, f"::ffff:{address}", f"64:ff9b::{address}", f"::ffff:0:{address}")
    if (not address.is_global or address.is_multicast) and not documentation:
        assert all(map(refused, (str(address), *carried)))


def test_loopback_is_this_hosts_own() -> None:
    assert is_own(2, "127.0.0.1")
    assert is_own(10, "::1")
    assert not is_own(2, "no address")


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def test_an_absolute_target_becomes_the_servers_own() -> None:
    request = parsed(
        head(
            "POST http://Good.Test:8080/a/b?c=d HTTP/1.1",
            "Host: good.test:8080",
            "Proxy-Authorization: Basic eDp5",
            "Connection: keep-alive, X-Hop, content-length",
            "X-Hop: 1",
            "Upgrade: websocket",
            "Content-Length: 3",
            "X-Long:  some\tvalue  ",
        )
    )
    assert (request.host, request.port, request.length) == ("good.test", 8080, 3)
    assert request.forwarded() == head(
        "POST /a/b?c=d HTTP/1.1",
        "Host: good.test:8080",
        "Content-Length: 3",
        "X-Long: some\tvalue",
        "Connection: close",
    )


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://good.test", b"GET / "),
        ("HTTP://good.test/", b"GET / "),
        ("http://good.test?q", b"GET /?q "),
        ("http://good.test:80//x", b"GET //x "),
        ("http://good.test./x", b"GET /x "),
    ],
)
def test_targets(target: str, path: bytes) -> None:
    sent = parsed(head(f"GET {target} HTTP/1.1", "Host: good.test")).forwarded()
    assert sent.startswith(path)
    assert b"Host: good.test\r\n" in sent


def test_connect_names_host_and_port() -> None:
    request = parsed(head("CONNECT good.test:443 HTTP/1.1", "Host: good.test"))
    assert request.tunnel
    assert (request.host, request.port) == ("good.test", 443)


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/"),
        *(
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://1.2.3.4:80/",
        ),
        *("http:///x", "http://:80/", "http://a@good.test/", "http://good.test:x/", "http://a b/"),
        *(
            "http://good.test:0/",
            "http://good.test:99999/",
            "http://good.test#f",
            "http://good.test/#f",
        ),
        *("http://good.test\\@evil.test/", "http://good.test%2eevil.test/", "http://good.test%00/"),
        *("https://good.test/", "ftp://good.test/", "//good.test/", "/x", "*", "good.test", ""),
        *(
            "http:/good.test/",
            "http://good.test\0.evil.test/",
            "http://good.test\t/",
            "http://é.test/",
        ),
    ],
)
def test_a_target_that_could_mean_something_else_is_refused(target: str) -> None:
    with pytest.raises(RefusedError):
        parsed(head(f"GET {target} HTTP/1.1"))


@pytest.mark.parametrize(
    "target",
    [
        *("good.test", "good.test:", "good.test:0", "good.test:443:443", ":443", "good.test:65536"),
        *("127.0.0.1:443", "[::1]:443", "::1:443", "2130706433:443", "0x7f.1:443", "127.1:443"),
        *(
            "good.test\0:443",
            "good.test\0.evil.test:443",
            "a@good.test:443",
            "http://good.test:443",
        ),
        *("good..test:443", "good.test:+443", "good.test:44 3", "*.test:443", "/:443"),
    ],
)
def test_connect_to_what_is_no_host_is_refused(target: str) -> None:
    with pytest.raises(RefusedError):
        parsed(head(f"CONNECT {target} HTTP/1.1"))


BAD_FIELDS = (
    *(["Content-Length: 1", "Content-Length: 1"], ["Content-Length: 1", "Content-Length: 2"]),
    *(["Content-Length: 3", "Transfer-Encoding: chunked"], ["Content-Length: 3, 3"]),
    *(["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip"]),
    *(["Transfer-Encoding: chunked, chunked"], ["Transfer-Encoding: identity"]),
    *(["Transfer-Encoding: chunked;x"], ["Transfer-Encoding: \x0bchunked"], ["Transfer-Encoding:"]),
    *(
        ["Content-Length: -1"],
        ["Content-Length: +1"],
        ["Content-Length: 0x1"],
        ["Content-Length: 1_0"],
    ),
    *(
        ["Content-Length: 1 1"],
        ["Content-Length:"],
        ["Content-Length: ٣".encode().decode("latin-1")],
    ),
    *(["Content-Length: " + "9" * 19], ["Content-Length : 1"], [" Content-Length: 1"]),
    *(["X: a", " folded"], ["X: a", "\tfolded"], ["X"], [": x"], ["X\0: a"], ["X: a\0b"]),
    *(["X: a\rb"], ["X: a\nb"], ["X: a\n"], ["X: a\r"], ["X(: a"], ["X y: a"], ["X: \x7f"]),
    *(
        ["Host: evil.test"],
        ["Host: good.test", "Host: good.test"],
        ["Host: good.test:81"],
        ["Host:"],
    ),
    *(["Host: good.test", "Host: evil.test"], ["Host: good.test, evil.test"], ["Host: 127.0.0.1"]),
    ["Host: good.test@evil.test"],
)


@pytest.mark.parametrize("lines", BAD_FIELDS, ids=str)
def test_a_field_that_can_be_read_in_two_ways_is_refused(lines: list[str]) -> None:
    with pytest.raises(RefusedError) as refusal:
        parsed(head("POST http://good.test/ HTTP/1.1", *lines))
    assert refusal.value.status == 400
    assert (refusal.value.host, refusal.value.port) == ("good.test", 80)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "GET  http://good.test/ HTTP/1.1",
            "GET http://good.test/ HTTP/1.1 ",
            "GET http://good.test/",
        ),
        *(
            "GET http://good.test/ HTTP/2.0",
            "GET http://good.test/ http/1.1",
            "GET\thttp://a/ HTTP/1.1",
        ),
        *("G(T http://good.test/ HTTP/1.1", " GET http://good.test/ HTTP/1.1", "", "\x16\x03\x01"),
        *(
            "GET http://good.test/ HTTP/1.1\n",
            "GET http://good.test/ HTTP/1.1\nX: y",
            "A" * 40 + " a b",
        ),
    ],
)
def test_a_first_line_is_three_words(line: str) -> None:
    with pytest.raises(RefusedError):
        parsed(head(line))


def test_chunks_need_http_1_1_and_connect_has_no_body() -> None:
    assert parsed(head("PUT http://a.b/ HTTP/1.1", "Transfer-Encoding: Chunked")).length == CHUNKED
    for first, field in (
        ("PUT http://a.b/ HTTP/1.0", "Transfer-Encoding: chunked"),
        ("CONNECT a.b:443 HTTP/1.1", "Content-Length: 0"),
        ("CONNECT a.b:443 HTTP/1.1", "Transfer-Encoding: chunked"),
    ):
        with pytest.raises(RefusedError):
            parsed(head(first, field))


@given(some.binary(max_size=300), some.binary(max_size=40))
def test_whatever_comes_is_read_or_refused(garbage: bytes, name: bytes) -> None:
    shown: list[str] = []
    for data in (
        garbage,
        b"GET http://" + name + b"/ HTTP/1.1\r\nHost: " + name + b"\r\n" + garbage,
    ):
        try:
            request = parsed(data + b"\r\n\r\n")
        except RefusedError as error:
            shown.append(error.host)
            continue
        sent = request.forwarded()
        assert sent.count(b"\r\n\r\n") == 1
        assert sent.replace(b"\r\n", b"").isascii() or b"\0" not in sent
        assert sent.lower().count(b"\r\nhost:") == 1
    assert all(host.isascii() and host.isprintable() for host in ["x", *shown])


@given(some.lists(some.binary(min_size=1, max_size=40), max_size=5), some.integers(1, 30))
def test_a_chunked_body_ends_where_it_says(pieces: list[bytes], step: int) -> None:
    whole = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    body, taken = Chunked(), 0
    data = whole + b"GET http://evil.test/"
    for at in range(0, len(data), step):
        taken += body.take(memoryview(data)[at : at + step])
    assert taken == len(whole)
    assert body.done


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"0x1\r\n",
            b"1\n",
            b"1;x\r\n",
        ),
        *(
            b"1\r\r\n",
            b"1\rx",
            b"1_0\r\n",
            b"1111111111111\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na0",
        ),
        *(b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 1\r\n\r\n", b"0\r\n\n", b"\x001\r\n"),
    ],
)
def test_a_chunk_in_another_form_is_refused(data: bytes) -> None:
    for step in (1, len(data)):
        body = Chunked()
        with pytest.raises(ValueError):
            for at in range(0, len(data), step):
                body.take(data[at : at + step])


@given(some.binary(max_size=200), some.integers(1, 50))
def test_chunks_are_cut_alike_in_however_many_pieces(data: bytes, step: int) -> None:
    def outcome(size: int) -> tuple[bool, bool]:
        body = Chunked()
        try:
            for at in range(0, len(data), size):
                body.take(data[at : at + size])
        except ValueError:
            return False, False
        return True, body.done

    assert outcome(step) == outcome(max(len(data), 1))


def test_a_counted_body_takes_that_many() -> None:
    body = Counted(5)
    assert [body.take(b"abc"), body.done, body.take(b"defg"), body.done] == [3, False, 2, True]
    assert body.take(b"x") == 0
    assert Counted(0).done


def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize("name", ["good.test", "a" * 60 + ".test"])
def test_the_hello_of_a_real_client_tells_its_host(name: str) -> None:
    data = hello(name)
    assert asked_host(data) == name.encode()
    assert asked_host(data + b"and more") == name.encode()
    assert asked_host(hello(None)) == b""
    assert all(asked_host(data[:size]) is None for size in range(len(data)))


def records(message: bytes, size: int) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


@pytest.mark.parametrize("size", [1, 3, 50, 16384])
def test_a_hello_may_come_in_many_records(size: int) -> None:
    assert asked_host(records(hello("good.test")[5:], size)) == b"good.test"


def made_hello(*extensions: bytes, behind: bytes = b"") -> bytes:
    joined = b"".join(extensions)
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"
    body += len(joined).to_bytes(2) + joined + behind
    return records(b"\1" + len(body).to_bytes(3) + body, 16384)


def server_name(*names: bytes, kind: int = 0, behind: bytes = b"") -> bytes:
    listed = b"".join(bytes([kind]) + len(name).to_bytes(2) + name for name in names)
    content = len(listed).to_bytes(2) + listed + behind
    return b"\0\0" + len(content).to_bytes(2) + content


def test_a_hello_made_by_hand_is_read() -> None:
    assert asked_host(made_hello(b"\0\x17\0\0", server_name(b"good.test"))) == b"good.test"


@pytest.mark.parametrize(
    "data",
    [
        made_hello(server_name(b"good.test"), server_name(b"evil.test")),
        made_hello(server_name(b"good.test", b"evil.test")),
        made_hello(server_name(b"good.test", kind=1)),
        made_hello(server_name(b"good.test", behind=b"x")),
        made_hello(server_name(b"")),
        made_hello(server_name()),
        made_hello(b"\0\0\0\x09\0"),
        made_hello(server_name(b"good.test"), behind=b"x"),
        *(b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x17\x03\x03\0\1x", b"\x16\x02\0\0\1\1"),
        *(
            b"\x16\x03\1\0\1\2",
            b"\x16\x03\1\0\0",
            b"\x16\x03\1\x50\0",
            b"\x16\x03\1\0\4\1\xff\xff\xff",
        ),
        *(records(b"\1\0\0\2ab", 99), b"\x80\x2e\1\3\1"),
    ],
)
def test_what_is_no_hello_or_asks_for_two_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        asked_host(data)


@given(some.binary(max_size=200), some.integers(0, 60))
def test_any_hello_is_read_or_refused(garbage: bytes, at: int) -> None:
    whole = made_hello(server_name(b"good.test"))
    for data in (garbage, whole[:at] + garbage + whole[at:]):
        try:
            asked_host(data)
        except ValueError:
            continue


JSON = some.recursive(
    some.text() | some.integers() | some.floats(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
)


@given(some.dictionaries(some.text(), JSON, max_size=3))
def test_lines_are_json(value: dict[str, object]) -> None:
    line = encoded(value)
    assert "\n" not in line
    assert json.loads(line) == value == decoded(line.encode())


@given(some.text(max_size=60))
def test_a_line_that_is_none_is_refused_as_elsewhere(text: str) -> None:
    try:
        theirs = json.loads(text.strip())
    except ValueError:
        theirs = None
    if isinstance(theirs, dict):
        assert decoded(text.encode()) == theirs
    else:
        with pytest.raises(ValueError):
            decoded(text.encode())


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"a":NaN}', b"{}x", b"\xff", b"[" * 99999])
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decoded(line)
