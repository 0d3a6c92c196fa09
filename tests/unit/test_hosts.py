"""Names of hosts: one spelling, and nothing that a resolver would take for an address."""

import socket
import string

import pytest
from hypothesis import given
from hypothesis import strategies as some

from csb_mcp.lib.hosts import matches, normal_host, normal_pattern, normal_port

ALPHABET = string.ascii_letters + string.digits + "-_.:*[]%@/ \t\r\n\0xX" + "é\u0131\u212a\u3002"
LABEL = some.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
NAME = some.lists(LABEL, min_size=1, max_size=4).map(".".join)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.org", "example.org"),
        ("Example.ORG.", "example.org"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("1.example.org", "1.example.org"),
        ("a" * 63 + ".b", "a" * 63 + ".b"),
    ],
)
def test_a_name_has_one_spelling(text: str, name: str) -> None:
    assert normal_host(text) == name


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.b..",
            " a",
            "a ",
            "a\tb",
            "a\nb",
            "a\0b",
            "a\0.good.test",
        ),
        *("-a.b", "a-.b", "a" * 64, ".".join(["a" * 60] * 5), "a/b", "a@b", "a%2eb", "*", "*.a"),
        *("bücher.example", "ex\u0131t.org", "\u212aelvin.org", "a\u3002b", "\uff11.1.1.1"),
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0x", "1.0x"),
        *("127.0.0.1.", "0", "a.1", "a.0x7f", "[::1]", "::1", "::ffff:127.0.0.1", "fe80::1%lo"),
        *(None, 7, b"example.org"),
    ],
)
def test_what_is_no_name_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        normal_host(text)


@given(some.text(ALPHABET, max_size=30))
def test_no_name_is_an_address_to_anybody(text: str) -> None:
    try:
        name = normal_host(text)
    except ValueError:
        return
    assert normal_host(name) == name
    assert name.isascii()
    with pytest.raises(OSError):
        socket.inet_aton(name)
    with pytest.raises(OSError):
        socket.inet_pton(socket.AF_INET6, name)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(name, 0, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize(
    ("pattern", "host", "port", "fits"),
    [
        ("example.org", "example.org", 443, True),
        ("example.org", "example.org", 80, True),
        ("example.org", "example.org", 8443, False),
        ("example.org:8443", "example.org", 8443, True),
        ("example.org:8443", "example.org", 443, False),
        ("example.org", "a.example.org", 443, False),
        ("example.org", "notexample.org", 443, False),
        ("*.example.org", "a.example.org", 443, True),
        ("*.example.org", "a.b.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "notexample.org", 443, False),
        ("*.example.org", "example.org.evil.test", 443, False),
    ],
)
def test_a_pattern_holds_no_surprises(pattern: str, host: str, port: int, fits: bool) -> None:
    assert matches(normal_pattern(pattern), host, port) is fits


@pytest.mark.parametrize(
    "text",
    [
        *(
            "*",
            "*.*",
            "*.org",
            "a.*.org",
            "**.a.org",
            "*a.b.org",
            "a.org:",
            "a.org:0",
            "a.org:65536",
        ),
        *("a.org:+80", "a.org: 80", "a.org:80:80", "a.org:٣", "", ":80", "[::1]:80", "10.0.0.1:80"),
        None,
    ],
)
def test_a_pattern_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        normal_pattern(text)


@given(NAME, NAME)
def test_a_star_needs_a_whole_label_before_it(name: str, other: str) -> None:
    try:
        pattern = normal_pattern(f"*.{name}")
        host = normal_host(other)
    except ValueError:
        return
    below = host.split(".")[-len(name.split(".")) :] == name.split(".") and host != name
    assert matches(pattern, host, 443) is below


@given(some.text("0123456789+- ٣", max_size=7))
def test_a_port_is_digits_in_range(text: str) -> None:
    try:
        port = normal_port(text)
    except ValueError:
        return
    assert 0 < port < 65536
    assert set(text) <= set(string.digits)
