"""The egress proxy's memory and manners: rules, requests, log, loop, and what comes to its door."""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from csb_mcp.host.network.proxy import journal as journals
from csb_mcp.host.network.proxy import resolver
from csb_mcp.host.network.proxy.asks import HOLD_SECONDS, MOST_NAMES, Asks
from csb_mcp.host.network.proxy.bodies import Counted
from csb_mcp.host.network.proxy.journal import Journal
from csb_mcp.host.network.proxy.loop import READ, Loop
from csb_mcp.host.network.proxy.rules import ONCE_SECONDS, Rules
from csb_mcp.host.network.proxy.sockets import listening_tcp
from csb_mcp.host.network.proxy.totals import MOST_ALLOWED, MOST_REFUSED, Totals
from csb_mcp.host.network.proxy.tunnel import Tunnel


def test_without_rules_nothing_passes() -> None:
    assert Rules().verdict("good.test", 443) == "asked"
    assert Rules(["other.test"], fixed=True).verdict("good.test", 443) == "denied"


def test_a_denial_wins_and_rules_are_replaced_whole() -> None:
    rules = Rules()
    rules.replace(["*.good.test", "b.good.test"], ["b.good.test"])
    assert [rules.verdict(f"{name}.good.test", 443) for name in "ab"] == ["allowed", "denied"]
    rules.replace([], [])
    assert rules.verdict("a.good.test", 443) == "asked"


@pytest.mark.parametrize("wrong", [["*"], ["10.0.0.1"], [None], ["a b"]])
def test_wrong_rules_change_nothing(wrong: list[object]) -> None:
    rules = Rules(["good.test"])
    for allow, deny in ((wrong, []), (["evil.test"], wrong)):
        with pytest.raises(ValueError):
            rules.replace(allow, deny)
    assert rules.verdict("good.test", 443) == "allowed"
    assert rules.verdict("evil.test", 443) == "asked"


def test_once_is_once_and_not_for_ever() -> None:
    rules = Rules()
    rules.add_once("Good.test.", 443, now=0)
    assert not rules.take_once("good.test", 80, 1)
    taken = rules.take_once("good.test", 443, 1)
    assert taken
    assert not rules.take_once("good.test", 443, 1)
    rules.give_back(taken)
    assert not rules.take_once("good.test", 443, ONCE_SECONDS + 1)
    for host, port in (("good.test", 0), ("good.test", "443"), ("1.2.3.4", 80)):
        with pytest.raises(ValueError):
            rules.add_once(host, port, 0)


class Later:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.planned: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.planned.append((seconds, call))

    def come(self, seconds: float) -> None:
        due = [one for one in self.planned if one[0] <= seconds]
        self.planned = [one for one in self.planned if one[0] > seconds]
        for _, call in due:
            call()


def test_a_refusal_waits_until_somebody_looked_and_no_longer() -> None:
    later, told, refused = Later(), list[dict[str, object]](), list[str]()
    asks = Asks(later)
    asks.ask("a.test", 443, 5, 0.0, lambda: refused.append("a"))
    assert refused == ["a"]  # nobody listens
    asks.send = told.append
    asks.ask("b.test", 443, 6, 0.0, lambda: refused.append("b"))
    asks.ask("c.test", 80, 7, 0.0, lambda: refused.append("c"))
    assert refused == ["a"]
    asks.seen(1)
    asks.seen(1)
    asks.seen("2")
    asks.seen(99)
    assert refused == ["a", "b"]
    later.come(HOLD_SECONDS)
    assert refused == ["a", "b", "c"]
    (first, second) = [line["asked"] for line in told]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first | {"time": 0} == {
        "id": 1,
        "host": "b.test",
        "port": 443,
        "count": 1,
        "time": 0,
        "peer": 6,
    }
    assert second["peer"] == 7


def test_one_name_is_told_once_a_second_with_the_count() -> None:
    later, told = Later(), list[dict[str, object]]()
    asks = Asks(later)
    asks.send = told.append
    for _ in range(50):
        asks.ask("a.test", 443, 6, 0.0, lambda: None)
    assert len(told) == 1
    later.come(1.0)
    assert [line["asked"]["count"] for line in told] == [1, 50]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]
    later.come(1.0)
    assert len(told) == 2


def test_a_flood_of_names_is_told_slowly_and_remembered_in_part() -> None:
    later, told = Later(), list[dict[str, object]]()
    asks = Asks(later)
    asks.send = told.append
    for number in range(MOST_NAMES + 10):
        asks.ask(f"a{number}.test", 443, 6, 0.0, lambda: None)
    assert len(told) == 50
    later.come(1.0)
    assert len(told) == 100
    known = asks.known()
    assert len(known) == MOST_NAMES
    assert known[0]["host"] == "a10.test"
    asks.keep(lambda host, _: host == "a12.test")
    assert [one["host"] for one in asks.known()] == ["a12.test"]


def test_a_listener_that_goes_releases_who_waits() -> None:
    asks, refused = Asks(Later()), list[str]()
    asks.send = lambda _: None
    asks.ask("a.test", 443, 6, 0.0, lambda: refused.append("a"))
    asks.deaf()
    assert refused == ["a"]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Journal, Later, Path]]:
    later = Later()
    yield Journal(str(tmp_path), later), later, tmp_path
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == str(tmp_path / "log"):
                os.close(int(name))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_a_line_for_each_and_is_ours_alone(log: tuple[Journal, Later, Path]) -> None:
    journal, _, folder = log
    journal.write("allowed", "a.test", 443, address="198.51.100.7", moved=(1, 2), seconds=0.5)
    (line,) = lines(folder / "log")
    assert line | {"time": 0} == {
        "time": 0,
        "host": "a.test",
        "port": 443,
        "verdict": "allowed",
        "why": "",
        "address": "198.51.100.7",
        "sent": 1,
        "received": 2,
        "seconds": 0.5,
    }
    assert (folder / "log").stat().st_mode & 0o777 == 0o600


def test_a_flood_of_refusals_is_counted(log: tuple[Journal, Later, Path]) -> None:
    journal, later, folder = log
    for _ in range(1000):
        journal.write("asked", "a.test", 443)
    journal.write("denied", "b.test", 443)
    journal.write("allowed", "c.test", 443)
    assert len(lines(folder / "log")) == 201
    later.come(1.0)
    more = {line["verdict"]: line["why"] for line in lines(folder / "log")[201:]}
    assert more == {"asked": "800 more in one second", "denied": "1 more in one second"}
    journal.write("asked", "d.test", 443)
    assert lines(folder / "log")[-1]["host"] == "d.test"


def test_the_log_is_bounded(
    log: tuple[Journal, Later, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_BYTES", 2000)
    journal, _, folder = log
    for number in range(100):
        journal.write("allowed", f"a{number}.test", 443)
    assert (folder / "log").stat().st_size <= 2000
    assert (folder / "log.1").stat().st_size <= 2000
    assert lines(folder / "log")[-1]["host"] == "a99.test"
    assert len(list(folder.iterdir())) == 2


def totals(folder: Path) -> dict[object, list[object]]:
    names = ("port", "allowed", "refused", "sent", "received")
    found = {line["host"]: [line[name] for name in names] for line in lines(folder / "totals")}
    assert len(found) == len(lines(folder / "totals"))
    return found


def test_what_a_flood_turns_over_stays_in_the_totals(
    log: tuple[Journal, Later, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_BYTES", 2000)
    journal, later, folder = log
    journal.write("asked", "a.test", 443)
    journal.write("allowed", "a.test", 443, moved=(7, 9))
    journal.write("failed", "a.test", 443)
    for number in range(300):
        journal.write("allowed", "b.test", 443, moved=(1, 2))
        journal.write("asked", f"c{number}.test", 80)
    later.come(1.0)
    assert "a.test" not in [line["host"] for line in lines(folder / "log")]
    found = totals(folder)
    assert found["a.test"] == [443, 2, 1, 7, 9]
    assert found["b.test"] == [443, 300, 0, 300, 600]
    assert found["c0.test"] == [80, 0, 1, 0, 0]
    assert found[""] == [0, 0, 300 - MOST_REFUSED, 0, 0]
    assert (folder / "totals").stat().st_mode & 0o777 == 0o600


def test_names_without_end_do_not_fill_the_totals(tmp_path: Path) -> None:
    later = Later()
    kept = Totals(str(tmp_path), later)
    for number in range(1000):
        kept.add("forbidden", f"a{number}.test", 443, (0, 0))
    for number in range(1000):
        kept.add("allowed", f"b{number}.test", 443, (1, 1))
    kept.add("forbidden", "", 0, (0, 0))
    kept.flush()
    assert len(lines(tmp_path / "totals")) == MOST_ALLOWED + MOST_REFUSED + 2
    rest = [line for line in lines(tmp_path / "totals") if not line["host"]]
    assert [(one["allowed"], one["refused"]) for one in rest] == [
        (1000 - MOST_ALLOWED, 0),
        (0, 1000 - MOST_REFUSED + 1),
    ]


@pytest.mark.parametrize("broken", [b"", b"{", b"7\n", b'{"host":"a.test"}\n', b"\xff\n"])
def test_totals_go_on_after_a_restart_whatever_stands_there(tmp_path: Path, broken: bytes) -> None:
    later = Later()
    for _ in range(2):
        kept = Totals(str(tmp_path), later)
        kept.add("allowed", "a.test", 443, (2, 3))
        kept.add("denied", "b.test", 443, (0, 0))
        kept.flush()
    assert totals(tmp_path) == {"a.test": [443, 2, 0, 4, 6], "b.test": [443, 0, 2, 0, 0]}
    (tmp_path / "totals").write_bytes(broken)
    kept = Totals(str(tmp_path), later)
    kept.add("allowed", "a.test", 443, (2, 3))
    later.come(1.0)
    assert totals(tmp_path)["a.test"] == [443, 1, 0, 2, 3]


def test_a_log_that_cannot_be_turned_is_not_written_elsewhere(
    log: tuple[Journal, Later, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_BYTES", 300)
    journal, _, folder = log
    journal.write("allowed", "a.test", 443, why="x" * 150)
    (folder / "log.1").mkdir()
    (folder / "log.1" / "in-the-way").touch()
    journal.write("allowed", "lost.test", 443)
    (folder / "log.1" / "in-the-way").unlink()
    (folder / "log.1").rmdir()
    opened = os.open
    monkeypatch.setattr(os, "open", _full)
    journal.write("allowed", "lost.test", 443)
    monkeypatch.setattr(os, "open", opened)
    ours, theirs = socket.socketpair()  # which may have the number of the log that was left
    with ours, theirs:
        for one in (ours, theirs):
            one.setblocking(False)
        journal.write("allowed", "b.test", 443)
        for one in (ours, theirs):
            with pytest.raises(BlockingIOError):
                one.recv(100)
    assert [line["host"] for line in lines(folder / "log")] == ["b.test"]
    assert [line["host"] for line in lines(folder / "log.1")] == ["a.test"]


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_of_an_answer_with_thousands_of_addresses_a_few_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(10, 1, 6, "", (f"2001:db8::{number:x}", 0, 0, 0)) for number in range(1, 3000)]
    monkeypatch.setattr(resolver, "_socket", _Answering(found))
    assert len(resolver.look_up("a.test").addresses) == 16


class _Answering:
    SOCK_STREAM, IPPROTO_TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP

    def __init__(self, found: list[tuple[int, int, int, str, tuple[str, int, int, int]]]) -> None:
        self._found = found

    def getaddrinfo(self, *_: object) -> object:
        return self._found


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        Journal(str(tmp_path), Later())
    assert not (tmp_path / "elsewhere").exists()


def test_a_number_that_was_closed_and_reused_hears_nothing_old() -> None:
    loop, heard = Loop(), list[str]()
    (a, a2), (b, b2) = socket.socketpair(), socket.socketpair()

    def first(_: int) -> None:
        """Both are ready; whoever is first closes the other and opens a new one in its place."""
        loop.end()
        heard.append("first")
        old = b.fileno()
        loop.forget(old)
        b.close()
        os.dup2(a2.fileno(), old)
        loop.watch(old, READ, lambda _: heard.append("new"))

    a2.send(b"x")
    b2.send(b"x")
    loop.watch(a.fileno(), READ, first)
    loop.watch(b.fileno(), READ, lambda _: heard.append("second"))
    number = b.fileno()
    loop.run()
    assert "new" not in heard
    loop.forget(number)
    os.close(number)
    for one in (a, a2, b2):
        one.close()
    loop.close()


def test_an_answer_from_a_server_that_takes_no_more_arrives() -> None:
    loop, ended = Loop(), list[str]()
    (client, ours), (upstream, theirs) = socket.socketpair(), socket.socketpair()

    def over(why: str) -> None:
        ended.append(why)
        loop.end()

    with client, ours, upstream:
        theirs.sendall(b"HTTP/1.1 413 Too Large\r\n\r\n")
        theirs.close()
        for one in (ours, upstream):
            one.setblocking(False)
        Tunnel(loop, (ours, upstream), b"POST / HTTP/1.1\r\n\r\n", Counted(9), over).start()
        loop.later(5, loop.end)
        loop.run()
        assert ended == [""]
        assert client.recv(100) == b"HTTP/1.1 413 Too Large\r\n\r\n"
    loop.close()


def test_only_a_listening_tcp_socket_is_taken_and_all_else_closed() -> None:
    def given(make: Callable[[], socket.socket]) -> bool:
        fd = make().detach()
        taken = listening_tcp(fd)
        if taken:
            taken.close()
        with pytest.raises(OSError):
            os.fstat(fd)
        return taken is not None

    def listening(family: int = socket.AF_INET) -> socket.socket:
        made = socket.socket(family)
        made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        made.listen()
        return made

    def pair() -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    assert given(listening)
    assert not given(lambda: listening(socket.AF_INET6))
    assert not given(lambda: socket.socket(socket.AF_INET))
    assert not given(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    assert not given(pair)
    fd = os.open("/dev/null", os.O_RDONLY)
    assert listening_tcp(fd) is None
    with pytest.raises(OSError):
        os.fstat(fd)


CONFINED = """
import os, signal, socket, sys
from csb_mcp.host.network.proxy.confine import confine
scoped = confine()
def attempt(name, call):
    try:
        call()
        print(name, "passed")
    except OSError as error:
        print(name, error.errno)
abstract = socket.socket(socket.AF_UNIX)
print("scoped", scoped)
attempt("abstract", lambda: abstract.connect(sys.argv[1].replace("@", chr(0))))
attempt("signal", lambda: os.kill(os.getppid(), 0))
"""


def test_a_confined_program_reaches_no_abstract_socket_and_signals_nobody() -> None:
    name = f"@csb-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.listen()
        words = [sys.executable, "-c", CONFINED, name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    told = dict(line.split() for line in done.stdout.splitlines())
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    if release >= (6, 12):
        assert told == {"scoped": "True", "abstract": "1", "signal": "1"}
    else:
        assert told["scoped"] == "False"
