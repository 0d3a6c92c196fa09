"""The egress proxy's deadlines, in a copy where they are short; and where TLS is ended."""

import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.internet import Internet, internet, until
from tests.support.proxies import RunningProxy, a_proxy, everything, install
from tests.support.servers import Server, back, mute

pytestmark = pytest.mark.once  # the proxy is a program for itself

GOOD = "198.51.100.7"
SHORTER = {
    "HEAD_SECONDS, CONNECT_SECONDS, ATTEMPT_SECONDS = 10.0, 15.0, 4.0": (
        "HEAD_SECONDS, CONNECT_SECONDS, ATTEMPT_SECONDS = 0.4, 0.9, 0.3"
    ),
    "IDLE_SECONDS, LINGER_SECONDS = 300.0, 2.0": "IDLE_SECONDS, LINGER_SECONDS = 0.6, 0.3",
}
TLS = '''
"""Stands for the one that ends TLS: tells what it was given, byte for byte."""

Entry = str

def entries(message):
    if message.get("authorities") != {"good.test": "PEM"}:
        raise ValueError("wrong secrets")
    return {one["host"]: one["value"] for one in message["secrets"]}

def serve(client, upstream, entry, tally):
    client.setblocking(True)
    upstream.setblocking(True)
    if entry == "breaks":
        raise OSError(5, "it broke")
    upstream.sendall(entry.encode())
    got = upstream.recv(100)
    client.sendall(got)
    while client.recv(1):
        pass
    return 3, len(got), "for a reason"
'''


def put(path: Path, text: str) -> None:
    """Newer than its compiled form, whose time has whole seconds."""
    path.write_text(text)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer("good.test", GOOD)
        yield made


@pytest.fixture(scope="module")
def altered(module_dir: Path) -> Path:
    installed = install(module_dir / "egress")
    folder = installed / "csb_mcp/host/network/proxy"
    text = (folder / "client.py").read_text()
    for before, after in SHORTER.items():
        assert before in text
        text = text.replace(before, after)
    put(folder / "client.py", text)
    put(folder / "tls.py", TLS)
    return installed


@pytest.fixture
def proxy(net: Internet, short_dir: Path, altered: Path) -> Iterator[RunningProxy]:
    words = [
        word
        for name in ("good.test", "*.good.test", "good.test:7777")
        for word in ("--allow", name)
    ]
    with a_proxy(net, short_dir, altered, *words) as made:
        yield made


def took(client: socket.socket) -> tuple[bytes, float]:
    began = time.monotonic()
    return everything(client), time.monotonic() - began


def test_half_a_request_is_cut_off(proxy: RunningProxy) -> None:
    with proxy.connect() as client:
        client.sendall(b"GET http://good.test/ HT")
        answer, seconds = took(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.3 < seconds < 3
    proxy.logged(verdict="forbidden", why="no whole request came")


def test_who_says_nothing_is_let_go_without_a_word(proxy: RunningProxy) -> None:
    with proxy.connect() as client:
        answer, seconds = took(client)
    assert answer == b""
    assert 0.3 < seconds < 3
    assert proxy.log() == []


def test_a_tunnel_without_a_hello_is_cut_off(net: Internet, proxy: RunningProxy) -> None:
    secure = net.serve(GOOD, 443, mute)
    client, _ = proxy.tunnel("good.test:443")
    with client, secure:
        client.sendall(b"\x16\x03\x01")
        assert took(client)[1] < 3
    proxy.logged(verdict="forbidden", why="no TLS hello came")
    assert secure.heard == []


def test_a_tunnel_in_which_nothing_moves_is_cut_off_and_no_other(
    net: Internet, proxy: RunningProxy
) -> None:
    server = net.serve(GOOD, 7777, back)
    still, _ = proxy.tunnel("good.test:7777")
    busy, _ = proxy.tunnel("good.test:7777")
    with still, busy:
        until(lambda: exchanged(busy) and proxy.log())
        assert took(still)[0] == b""
        assert exchanged(busy)
    proxy.logged(verdict="allowed", why="cut off: nothing moved for too long")
    server.close()


def exchanged(client: socket.socket) -> bool:
    client.sendall(b"x")
    return client.recv(1) == b"x"


def test_who_does_not_let_go_after_its_answer_is_cut_off(proxy: RunningProxy) -> None:
    with proxy.connect() as client:
        client.sendall(b"CONNECT 1.2.3.4:80 HTTP/1.1\r\n\r\n")
        assert b" 403 " in everything(client)

        def gone() -> bool:
            try:
                client.sendall(b"x")
            except OSError:
                return True
            return False

        until(gone, 3)


def test_a_name_that_is_never_answered_is_given_up(net: Internet, proxy: RunningProxy) -> None:
    net.names.silence("silent.good.test")
    with proxy.connect() as client:
        client.sendall(b"GET http://silent.good.test/ HTTP/1.1\r\n\r\n")
        answer, seconds = took(client)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert seconds < 3
    proxy.logged(host="silent.good.test", verdict="failed", why="it did not answer")


def test_an_address_that_is_silent_gives_way_to_the_next(
    net: Internet, proxy: RunningProxy
) -> None:
    """A full backlog answers nothing."""
    server = net.serve(GOOD, 80)
    with net.outside.listen("198.51.100.66", 80) as deaf:
        deaf.listen(0)
        with net.host.connect("198.51.100.66", 80):
            net.names.answer("a.good.test", "198.51.100.66", GOOD)
            answer = proxy.ask(b"GET http://a.good.test/ HTTP/1.1\r\n\r\n")
            assert b" 200 " in answer
            net.names.answer("b.good.test", "198.51.100.66")
            answer = proxy.ask(b"GET http://b.good.test/ HTTP/1.1\r\n\r\n")
    assert b" 502 " in answer
    proxy.logged(host="b.good.test", verdict="failed", why="it does not answer")
    server.close()


def test_without_a_thread_left_it_says_so_and_lives(net: Internet, proxy: RunningProxy) -> None:
    """The proxy shares its sandbox's limits, and a fork bomb uses them up."""
    server = net.serve(GOOD, 80)
    get = b"GET http://good.test/ HTTP/1.1\r\n\r\n"
    before = resource.prlimit(proxy.process.pid, resource.RLIMIT_AS)
    used = int(Path(f"/proc/{proxy.process.pid}/statm").read_text().split()[0]) * 4096
    resource.prlimit(proxy.process.pid, resource.RLIMIT_AS, (used, before[1]))
    answer = proxy.ask(get)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"too many processes" in answer
    resource.prlimit(proxy.process.pid, resource.RLIMIT_AS, before)
    assert proxy.ask(get).startswith(b"HTTP/1.1 200 ")
    server.close()


def secrets(value: str, host: str = "good.test") -> dict[str, object]:
    one = {"host": host, "placeholder": "p", "value": value, "certificate": "c", "key": "k"}
    return {"do": "secrets", "secrets": [one], "authorities": {"good.test": "PEM"}}


@pytest.fixture
def secure(net: Internet) -> Iterator[Server]:
    with net.serve(GOOD, 443, back) as made:
        yield made


def test_a_secrets_host_is_served_by_tls_in_a_thread(
    secure: Server, net: Internet, short_dir: Path, altered: Path
) -> None:
    with a_proxy(net, short_dir, altered) as proxy:
        control = proxy.control()
        control.rules()  # else a request waits for the first ones
        assert b" 403 " in proxy.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n")
        assert control.do(**secrets("the value")) == {"done": "secrets"}
        client, answer = proxy.tunnel("good.test:443")
        assert b" 200 " in answer
        with client:
            assert client.recv(100) == b"the value"
        line = proxy.logged(host="good.test", port=443, verdict="allowed")
        assert (line["sent"], line["received"], line["why"]) == (3, 9, "for a reason")
        answer = proxy.ask(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
        assert b" 403 " in answer  # by itself only for TLS
        client, _ = proxy.tunnel("good.test:443")
        with client:
            assert client.recv(100) == b"the value"
            control.rules(deny=["good.test"])
            assert everything(client) == b""  # a thread that serves it is woken and ends
        control.rules()
        assert control.do(**secrets("breaks")) == {"done": "secrets"}
        client, _ = proxy.tunnel("good.test:443")
        assert everything(client) == b""
        client.close()
        proxy.logged(verdict="failed", why="it broke")
        assert control.do(do="secrets", secrets=[{}]) == {"error": "wrong secrets"}
        control.close()


def test_bytes_before_the_answer_are_refused_where_tls_is_ended(
    secure: Server, net: Internet, short_dir: Path, altered: Path
) -> None:
    with a_proxy(net, short_dir, altered) as proxy:
        control = proxy.control()
        control.rules()  # else a request waits for the first ones
        assert control.do(**secrets("the value")) == {"done": "secrets"}
        assert b" 400 " in proxy.ask(b"CONNECT good.test:443 HTTP/1.1\r\n\r\n\x16")
        control.close()


def test_no_more_threads_than_it_may_have(
    secure: Server, net: Internet, short_dir: Path, altered: Path
) -> None:
    with a_proxy(net, short_dir, altered) as proxy:
        control = proxy.control()
        control.rules()  # else a request waits for the first ones
        assert control.do(**secrets("v")) == {"done": "secrets"}
        clients = [proxy.tunnel("good.test:443") for _ in range(33)]
        assert [b" 200 " in answer for _, answer in clients] == [True] * 32 + [False]
        assert b" 503 " in clients[-1][1]
        for client, _ in clients:
            client.close()
        until(lambda: len(proxy.log()) == 33)
        client, answer = proxy.tunnel("good.test:443")
        client.close()
        assert b" 200 " in answer
        control.close()
