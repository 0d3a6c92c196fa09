"""The tests' own internet is what it says: what is refused elsewhere would be reachable here."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import internet as place
from tests.support.internet import Internet, internet, run
from tests.support.servers import with_tls


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        yield made


def test_a_command_on_the_host_keeps_its_user_and_its_folder(net: Internet) -> None:
    assert run(net, ["id", "-u"]).strip() == str(os.getuid())
    assert run(net, ["pwd"]).strip() == os.getcwd()


def test_a_normal_user_has_no_power_over_the_network(net: Internet) -> None:
    words = [*net.prefix, "ip", "link", "set", "lo", "down"]
    refused = subprocess.run(words, capture_output=True, check=False)
    assert (refused.returncode == 0) == (os.getuid() == 0)
    net.host.ip("link set lo up")


def test_names_are_resolved_there_and_can_change(net: Internet) -> None:
    look = ["/usr/bin/python3", "-c", "import socket; print(socket.gethostbyname('a.test'))"]
    net.names.answer_in_turn("a.test", "198.51.100.7", "10.9.8.9")
    assert [run(net, look).strip() for _ in range(3)] == ["198.51.100.7", "10.9.8.9", "10.9.8.9"]
    net.names.answer("a.test", CNAME="b.test")
    net.names.answer("b.test", "198.51.100.8", "2001:db8::8", TXT="x")
    assert run(net, look).strip() == "198.51.100.8"
    assert ("a.test", "A") in net.names.asked


@pytest.mark.parametrize(
    "address",
    [
        "198.51.100.7",
        "2001:db8::7",
        place.NEIGHBOUR,
        place.METADATA,
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "fd00::1",
        "64:ff9b::a09:809",
        "2002:a09:809::1",
    ],
)
def test_every_address_outside_answers(net: Internet, address: str) -> None:
    server = net.serve(address, 0)
    with net.host.connect(address, server.port) as connection:
        connection.sendall(b"GET /there HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["target"] == "/there"
    assert server.peers[0] in (place.HOST, place.HOST6, place.HOST_PRIVATE)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", place.HOST, place.HOST6, "10.9.8.2"])
def test_the_host_has_addresses_of_its_own(net: Internet, address: str) -> None:
    server = net.serve(address, 0, on_host=True)
    with net.host.connect(address, server.port) as connection:
        assert connection.getpeername()[0] == address
    if address in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):  # it is not ours
            socket.create_connection((address, server.port), 5)


def test_tls_with_a_certificate_made_for_it(net: Internet) -> None:
    net.names.answer("tls.test", "198.51.100.9")
    certificate = net.certificate("tls.test")
    net.serve("198.51.100.9", 443, with_tls(certificate))
    told = run(net, ["curl", "-sS", "--cacert", str(certificate), "https://tls.test/x"])
    assert json.loads(told)["target"] == "/x"
