"""What is allowed passes whole through the egress proxy, and who may change that."""

import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.internet import Internet, internet, until
from tests.support.proxies import Control, RunningProxy, a_proxy, everything, install
from tests.support.servers import Server, back, read_head, sink, source, with_tls

pytestmark = pytest.mark.once  # the proxy is a program for itself

GOOD, GOOD6 = "198.51.100.7", "2001:db8::7"
BIG = 24 << 20


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer("good.test", GOOD)
        made.names.answer("six.test", GOOD6)
        yield made


@pytest.fixture(scope="module")
def installed(module_dir: Path) -> Path:
    return install(module_dir / "egress")


@pytest.fixture(scope="module")
def server(net: Internet) -> Server:
    return net.serve(GOOD, 80)


@pytest.fixture
def proxy(net: Internet, short_dir: Path, installed: Path) -> Iterator[RunningProxy]:
    with a_proxy(net, short_dir, installed) as made:
        yield made


@pytest.fixture
def control(proxy: RunningProxy) -> Iterator[Control]:
    made = proxy.control()
    made.rules("good.test", "good.test:7777", "six.test")
    yield made
    made.close()


def curl(proxy: RunningProxy, *words: str, given: bytes = b"") -> bytes:
    command = ["curl", "-sS", "-m", "20", "--proxy", f"http://127.0.0.1:{proxy.port}", *words]
    env = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, input=given, env=env, capture_output=True, check=True).stdout


def test_curl_gets_by_http_and_by_tls(
    net: Internet, server: Server, proxy: RunningProxy, control: Control
) -> None:
    told = json.loads(curl(proxy, "-H", "X-Mine: y", "http://good.test/a?b"))
    assert told["target"] == "/a?b"
    assert ["host", "good.test"] in told["headers"]
    assert ["x-mine", "y"] in told["headers"]
    certificate = net.certificate("good.test")
    secure = net.serve(GOOD, 443, with_tls(certificate))
    told = json.loads(curl(proxy, "--cacert", str(certificate), "https://good.test/c"))
    assert told["target"] == "/c"
    line = proxy.logged(host="good.test", port=443, verdict="allowed")
    assert line["address"] == GOOD
    assert line["sent"] > 200
    assert line["received"] > 200
    secure.close()


def test_over_ipv6(net: Internet, proxy: RunningProxy, control: Control) -> None:
    six = net.serve(GOOD6, 80)
    assert json.loads(curl(proxy, "http://six.test/"))["target"] == "/"
    assert proxy.logged(host="six.test")["address"] == GOOD6
    six.close()


def test_an_address_that_does_not_answer_gives_way(
    net: Internet, server: Server, proxy: RunningProxy, control: Control
) -> None:
    net.names.answer("two.test", "198.51.100.88", "2001:db8::88", GOOD)
    control.rules("two.test")
    assert json.loads(curl(proxy, "http://two.test/"))["target"] == "/"
    assert proxy.logged(host="two.test")["address"] == GOOD


@pytest.mark.parametrize(
    "how", [["--data-binary", "@-"], ["-T", "-", "-H", "Expect: 100-continue"]]
)
def test_large_bodies_go_up_whole(
    proxy: RunningProxy, server: Server, control: Control, how: list[str]
) -> None:
    """By length, and in chunks after a 100 Continue."""
    body = os.urandom(1 << 16) * (BIG >> 16)
    told = json.loads(curl(proxy, *how, "http://good.test/up", given=body))
    if "-T" in how:
        assert ["transfer-encoding", "chunked"] in told["headers"]
        assert ["expect", "100-continue"] in told["headers"]
        assert told["length"] > BIG
    else:
        assert told["sha256"] == hashlib.sha256(body).hexdigest()
    assert proxy.logged(host="good.test")["sent"] > BIG


def test_large_bodies_come_down_whole(net: Internet, proxy: RunningProxy, control: Control) -> None:
    body = os.urandom(1 << 16) * (BIG >> 16)

    def tell(_: Server, connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)

    big = net.serve("198.51.100.8", 80, tell)
    net.names.answer("big.test", "198.51.100.8")
    control.rules("big.test")
    assert curl(proxy, "http://big.test/") == body
    assert proxy.logged(host="big.test")["received"] > BIG
    big.close()


def test_an_answer_before_the_end_of_the_request_arrives(
    net: Internet, proxy: RunningProxy, control: Control
) -> None:
    def refuse(_: Server, connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    early = net.serve("198.51.100.9", 80, refuse)
    net.names.answer("early.test", "198.51.100.9")
    control.rules("early.test")
    head = b"POST http://early.test/ HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n"
    with proxy.connect() as client:
        client.sendall(head + bytes(1000))
        assert everything(client).endswith(b"no")
    early.close()


def test_each_half_of_a_tunnel_ends_by_itself(
    net: Internet, proxy: RunningProxy, control: Control
) -> None:
    taking = net.serve(GOOD, 7777, sink)
    client, answer = proxy.tunnel("good.test:7777")
    with client:
        assert answer.startswith(b"HTTP/1.1 200 ")
        client.sendall(bytes(100_000))
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"100000"
    line = proxy.logged(host="good.test", port=7777)
    assert (line["sent"], line["received"], line["why"]) == (100_000, 6, "")
    taking.close()
    giving = net.serve(GOOD, 7777, source(100_000))
    client, _ = proxy.tunnel("good.test:7777")
    with client:
        assert len(everything(client)) == 100_000  # the server ended its half; ours is open
        client.sendall(b"more")
    assert proxy.logged(host="good.test", received=100_000)["sent"] == 4
    giving.close()


def test_a_cut_connection_is_cut_on_the_other_side(
    net: Internet, proxy: RunningProxy, control: Control
) -> None:
    server = net.serve(GOOD, 7777, back)
    client, _ = proxy.tunnel("good.test:7777")
    with client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        server.cut()
        assert everything(client) == b""
    server.close()


def test_who_does_not_answer_is_told(net: Internet, proxy: RunningProxy, control: Control) -> None:
    control.rules("nobody.test", "gone.test", "silent.test")
    net.names.answer("nobody.test", "198.51.100.99")
    assert b" 502 " in proxy.ask(b"GET http://nobody.test/ HTTP/1.1\r\n\r\n")
    assert "refused" in str(proxy.logged(host="nobody.test", verdict="failed")["why"])
    assert b" 502 " in proxy.ask(b"GET http://gone.test/ HTTP/1.1\r\n\r\n")
    assert "cannot be resolved" in str(proxy.logged(host="gone.test", verdict="failed")["why"])


def test_a_way_out_without_rules_is_closed(
    net: Internet, server: Server, proxy: RunningProxy
) -> None:
    server.peers.clear()
    with proxy.connect() as before:  # each waits for rules for a while
        before.sendall(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
        proxy.control().close()
        assert b" 403 " in proxy.ask(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
        assert b" 403 " in everything(before)
    assert not server.peers


def test_rules_without_a_daemon_are_fixed(
    net: Internet, server: Server, short_dir: Path, installed: Path
) -> None:
    words = ("--allow", "good.test", "--allow", "*.good.test")
    with a_proxy(net, short_dir, installed, *words) as proxy:
        assert b" 200 " in proxy.ask(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
        answer = proxy.ask(b"GET http://other.test/ HTTP/1.1\r\n\r\n")
        assert answer.endswith(b"csb-mcp: other.test:80 is not allowed.\n")
        proxy.logged(host="other.test", verdict="denied", why="not in the rules")


def test_wrong_options_are_told(short_dir: Path, installed: Path) -> None:
    folders = ["--door", str(short_dir), "--control", str(short_dir), "--log", str(short_dir)]
    for words in ([], folders[:4], [*folders, "--allow", "*"], [*folders, "--x", "y"], folders[:5]):
        argv = ["/usr/bin/python3", "-I", "-S", str(installed), *words]
        done = subprocess.run(argv, capture_output=True, timeout=20, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(b"csb egress: ")


def test_it_ends_with_its_parent(net: Internet, short_dir: Path, installed: Path) -> None:
    parent = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        proxy = RunningProxy(net, short_dir, installed, "--parent", str(parent.pid))
        proxy.open()
        assert proxy.process.poll() is None
    finally:
        parent.communicate()
    assert proxy.process.wait(10) == 0
    proxy.listener.close()


def test_an_unknown_name_is_asked_for_and_the_answer_waits(
    proxy: RunningProxy, control: Control
) -> None:
    took: list[float] = []
    for name in ("new0.test", "new1.test", "new2.test"):
        with proxy.connect() as client:
            began = time.monotonic()
            client.sendall(f"CONNECT {name}:443 HTTP/1.1\r\n\r\n".encode())
            asked = control.read()["asked"]
            assert (asked["host"], asked["port"], asked["count"]) == (name, 443, 1)
            assert asked["peer"] == client.getsockname()[1]
            control.send(do="seen", id=asked["id"])
            answer = everything(client).decode()
            took.append(time.monotonic() - began)
        told = f"{name}:443 is not allowed. The supervisor has been asked; try again later."
        assert told in answer
    assert min(took) < 0.14  # by "seen"; one of them may have had to wait for a processor
    began = time.monotonic()
    proxy.ask(b"CONNECT newer.test:443 HTTP/1.1\r\n\r\n")
    assert 0.14 < time.monotonic() - began < 5
    proxy.logged(host="newer.test", verdict="asked")


def test_once_is_for_one_connection(server: Server, proxy: RunningProxy) -> None:
    control = proxy.control()
    assert control.do(do="once", host="good.test", port=80) == {"done": "once"}
    with proxy.connect() as client:
        client.sendall(b"POST http://good.test/ HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        until(lambda: server.peers)
        control.rules()  # what was let through once stays
        client.sendall(b"x")
        assert b" 200 " in everything(client)
    assert b" 403 " in proxy.ask(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
    control.close()


def test_what_is_let_through_once_was_answered(proxy: RunningProxy) -> None:
    """So the next daemon does not hear of it again, and hears of those that nobody answered."""
    control = proxy.control()
    control.rules()  # else a request waits for the first ones
    control.close()
    for host in ("once.test", "other.test"):
        proxy.ask(f"GET http://{host}/ HTTP/1.1\r\n\r\n".encode())
    control = proxy.control()
    assert {asked["host"] for asked in control.hello["asked"]} >= {"once.test", "other.test"}
    assert control.do(do="once", host="once.test", port=80) == {"done": "once"}
    control.close()
    control = proxy.control()
    hosts = [asked["host"] for asked in control.hello["asked"]]
    assert "other.test" in hosts
    assert "once.test" not in hosts
    control.close()


def test_once_is_not_used_up_by_a_host_that_is_away(net: Internet, proxy: RunningProxy) -> None:
    control = proxy.control()
    control.rules()  # else a request waits for the first ones
    net.names.answer("late.test", "198.51.100.20")
    assert control.do(do="once", host="late.test", port=80) == {"done": "once"}
    assert b" 502 " in proxy.ask(b"GET http://late.test/ HTTP/1.1\r\n\r\n")
    late = net.serve("198.51.100.20", 80)
    assert b" 200 " in proxy.ask(b"GET http://late.test/ HTTP/1.1\r\n\r\n")
    late.close()
    control.close()


@pytest.mark.parametrize("deny", [[], ["good.test:7777"]])
def test_new_rules_cut_what_is_open(
    net: Internet, proxy: RunningProxy, control: Control, deny: list[str]
) -> None:
    server = net.serve(GOOD, 7777, back)
    client, _ = proxy.tunnel("good.test:7777")
    with client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        control.rules(*(["good.test:7777"] if deny else []), deny=deny)
        assert everything(client) == b""
    line = proxy.logged(host="good.test", port=7777, verdict="denied")
    assert (line["sent"], line["why"]) == (1, "cut off: the rules have changed")
    client, answer = proxy.tunnel("good.test:7777")
    client.close()
    assert (b"has been denied" if deny else b"is not allowed") in answer
    server.close()


def test_a_denial_wins(proxy: RunningProxy, control: Control) -> None:
    control.rules("*.good.test", deny=["bad.good.test"])
    answer = proxy.ask(b"GET http://bad.good.test/ HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"csb-mcp: bad.good.test:80 has been denied.\n")
    proxy.logged(host="bad.good.test", verdict="denied")


WRONG: tuple[dict[str, Any], ...] = (
    *({"do": "rules"}, {"do": "rules", "allow": "good.test", "deny": []}, {"do": "nothing"}, {}),
    *({"do": "rules", "allow": ["*"], "deny": []}, {"do": "rules", "allow": [1], "deny": []}),
    *({"do": "once", "host": "1.2.3.4", "port": 80}, {"do": "once", "host": "a", "port": "80"}),
    *({"do": "once", "host": "a"}, {"do": "secrets"}, {"do": "secrets", "secrets": {}}),
)


def test_what_the_daemon_gets_wrong_changes_nothing(
    server: Server, proxy: RunningProxy, control: Control
) -> None:
    for message in WRONG:
        assert list(control.do(**message)) == ["error"]
    control.socket.sendall(b"\xff\n[1]\nnull\n")
    assert [list(control.read()) for _ in range(3)] == [["error"]] * 3
    assert control.do(do="secrets", secrets=[], authorities={}) == {"done": "secrets"}
    assert b" 200 " in proxy.ask(b"GET http://good.test/ HTTP/1.1\r\n\r\n")


def test_the_newest_daemon_wins_and_no_connection_is_lost(
    net: Internet, proxy: RunningProxy, control: Control
) -> None:
    server = net.serve(GOOD, 7777, back)
    client, _ = proxy.tunnel("good.test:7777")
    proxy.ask(b"GET http://new.test/ HTTP/1.1\r\n\r\n")
    with client:
        second = proxy.control()
        assert [(one["host"], one["count"]) for one in second.hello["asked"]] == [("new.test", 1)]
        while line := control.read():
            assert "asked" in line
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        second.close()  # killed: the rules stay
        client.sendall(b"y")
        assert client.recv(1) == b"y"
        third = proxy.control()
        third.rules("good.test:7777", "new.test")
        client.sendall(b"z")
        assert client.recv(1) == b"z"
        third.close()
    fourth = proxy.control()
    assert fourth.hello["asked"] == []  # a rule decides that name now
    fourth.close()
    server.close()


def test_a_daemon_that_sends_without_end_is_let_go(proxy: RunningProxy) -> None:
    control = proxy.control()
    with pytest.raises(OSError):
        for _ in range(100):
            control.socket.sendall(b"x" * (1 << 16))
    control.close()
    proxy.control().close()


def test_a_proxy_started_anew_knows_nothing_until_it_is_told(
    server: Server, proxy: RunningProxy, control: Control
) -> None:
    get = b"GET http://good.test/ HTTP/1.1\r\n\r\n"
    assert b" 200 " in proxy.ask(get)
    proxy.restart()
    assert proxy.open() == b"ok\n"
    assert b" 403 " in proxy.ask(get)
    again = proxy.control()
    again.rules("good.test")
    assert b" 200 " in proxy.ask(get)
    again.close()


def test_who_asks_before_the_first_rules_waits_for_them(
    server: Server, proxy: RunningProxy
) -> None:
    """A payload may be faster than the daemon, which reads secrets first."""
    control = proxy.control()
    with proxy.connect() as client, proxy.connect() as other:
        client.sendall(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
        other.sendall(b"GET http://other.test/ HTTP/1.1\r\n\r\n")
        time.sleep(0.3)  # nothing may come, and for that only time can be waited
        assert not select.select([client, other], [], [], 0)[0]
        control.rules("good.test")
        assert b" 200 " in everything(client)
        assert b" 403 " in everything(other)
    assert {(line["host"], line["verdict"]) for line in proxy.log()} == {
        ("good.test", "allowed"),
        ("other.test", "asked"),
    }
    control.close()


def test_its_end_is_logged_for_each_connection(
    net: Internet, short_dir: Path, installed: Path
) -> None:
    server = net.serve(GOOD, 7777, back)
    with a_proxy(net, short_dir, installed, "--allow", "good.test:7777") as proxy:
        client, _ = proxy.tunnel("good.test:7777")
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        proxy.process.send_signal(signal.SIGTERM)
        assert everything(client) == b""
        client.close()
        assert proxy.process.wait(10) == 0
    line = proxy.logged(host="good.test", why="cut off: the proxy ended")
    assert (line["sent"], line["received"]) == (1, 1)
    server.close()


def test_a_slow_reader_holds_back_the_sender_and_costs_no_memory(
    net: Internet, proxy: RunningProxy, control: Control
) -> None:
    giving = net.serve(GOOD, 7777, source(1 << 40))
    before = proxy.memory()
    clients = [proxy.tunnel("good.test:7777")[0] for _ in range(40)]
    until(lambda: _stands_still(proxy), 20)
    assert proxy.memory() - before < 40 * (256 << 10) + (2 << 20)
    for client in clients:
        client.close()
    until(lambda: len(proxy.log()) == 40)
    giving.close()


def test_a_close_waits_for_nobody(
    net: Internet, server: Server, proxy: RunningProxy, control: Control
) -> None:
    """A linger time that the payload set on its listener would be every connection's."""
    proxy.listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    giving = net.serve(GOOD, 7777, source(1 << 40))
    client, _ = proxy.tunnel("good.test:7777")
    until(lambda: _stands_still(proxy), 20)
    with client:  # which reads nothing
        control.rules("good.test")
        proxy.logged(host="good.test", verdict="denied")
        assert b" 200 " in proxy.ask(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
    giving.close()


def _stands_still(proxy: RunningProxy) -> bool:
    def ticks() -> int:
        fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(0.2)  # the span in which no processor time may be spent
    return ticks() == before


def test_500_connections_and_hundreds_of_megabytes_leave_nothing_behind(
    net: Internet, proxy: RunningProxy, control: Control
) -> None:
    size = 1 << 20
    idle = proxy.memory()
    giving = net.serve(GOOD, 7777, source(size))
    clients = [proxy.tunnel("good.test:7777")[0] for _ in range(500)]
    got = list[int]()

    def read(some: list[socket.socket]) -> None:
        got.extend(len(everything(client)) for client in some)

    threads = [threading.Thread(target=read, args=(clients[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [size] * 500
    for client in clients:
        client.close()
    until(lambda: len(proxy.log()) == 500)
    assert sum(line["received"] for line in proxy.log()) == 500 * size
    assert proxy.memory() < idle + (8 << 20)
    giving.close()


def test_more_clients_than_it_takes_wait_their_turn(
    net: Internet, server: Server, proxy: RunningProxy, control: Control
) -> None:
    clients = [proxy.connect() for _ in range(1024)]
    late = proxy.connect(3)
    late.sendall(b"GET http://good.test/ HTTP/1.1\r\n\r\n")
    until(lambda: _stands_still(proxy))
    late.setblocking(False)
    with pytest.raises(BlockingIOError):
        late.recv(1)
    for client in clients[:10]:
        client.close()
    late.settimeout(5)
    assert b" 200 " in everything(late)
    for client in (*clients, late):
        client.close()


def test_the_log_of_connections_counts_a_flood(proxy: RunningProxy, control: Control) -> None:
    for _ in range(300):
        with proxy.connect() as client:
            client.sendall(b"CONNECT 1.2.3.4:443 HTTP/1.1\r\n\r\n")
            assert b" 403 " in everything(client)
    until(lambda: _refusals(proxy) == 300)


def _refusals(proxy: RunningProxy) -> int:
    counted = [line["why"].partition(" more in")[0] for line in proxy.log()]
    return sum(int(count) if count.isdigit() else 1 for count in counted)
