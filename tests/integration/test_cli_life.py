"""The command line on real sandboxes: what only they can prove."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sandboxes import mentions
from tests.support.shell import Terminal
from tests.support.station import Station, a_station

REAL = Path(sys.executable).with_name("csb-mcp")


@pytest.fixture(scope="module")
def station() -> Iterator[Station]:
    with a_station() as station:
        station.command = REAL
        project = station.base / "project"
        project.mkdir()
        yield station


@pytest.fixture
def web(station: Station) -> Iterator[str]:
    """Id of a real sandbox of that name."""
    status, out, err = station.run(
        "create", "project", "--name", "web", "--agent", "shell", "--json"
    )
    assert status == 0, err
    yield json.loads(out)["id"]
    assert station.run("delete", "web")[0] == 0


def test_a_person_works_with_a_sandbox(station: Station, web: str) -> None:
    assert f"{web}  web   running  shell  none" in station.run("list")[1]
    _, out, _ = station.run("send", "web", "echo $((40 + 2))", "--keys", "Enter")
    cursor = out.split()[-1]
    words = ("--terminal-regex", "^42$", "--cursor", cursor, "--timeout", "20")
    assert station.run("wait", "web", *words)[:2] == (0, f"{web} terminal_regex: 42\n")
    assert "\n42\n" in station.run("read", "web")[1]
    (station.base / "project/input").write_text("of the project\n")
    assert station.run("run", "web", "--", "cat", "input") == (0, "of the project\n", "")
    line = "echo out; printf '\\033[31merr' >&2; exit 7"
    assert station.run("run", "web", "--", line) == (7, "out\n", "err")
    assert station.run("run", "web", "--timeout", "300ms", "--", "sleep", "60")[0] == 124
    assert station.run("screenshot", "web", "-o", "shot.png")[1] == "shot.png\n"
    assert (station.base / "shot.png").read_bytes().startswith(b"\x89PNG")


def test_display_pause_and_log(station: Station, web: str) -> None:
    for words in (("click", "9", "9"), ("scroll", "9", "9", "--dy", "1"), ("type", "é日")):
        status, out, err = station.run(words[0], "web", *words[1:])
        assert (status, err) == (0, "")
        assert out.startswith("frame: ")
    assert station.run("pause", "web")[1] == f"{web} (web) paused\n"
    assert station.run("list", "--state", "paused", "--quiet")[1] == f"{web}\n"
    assert station.run("resume", "web")[0] == 0
    follower = station.start("logs", "web", "--follow")
    station.run("send", "web", "echo last-$((1 + 1))", "--keys", "Enter")
    assert station.run("wait", "web", "--terminal-text", "last-2")[0] == 0
    assert station.run("stop", "web")[0] == 0
    out, err = follower.communicate(timeout=40)
    assert (follower.returncode, err) == (0, b"")
    assert b"last-2" in out
    assert b"\x1b" not in out
    assert out.decode() == station.run("logs", "web")[1]


def test_attach_is_the_real_tmux(station: Station, web: str) -> None:
    terminal = Terminal([str(REAL), "attach", "web"], station.env, station.base, columns=130)
    try:
        terminal.until(lambda shown: "agent@" in shown)
        terminal.type("echo $((6 * 7))-seen\r")
        terminal.until(lambda shown: "42-seen" in shown)
        terminal.press("\x02", "d")
        assert terminal.end() == 0
    finally:
        terminal.kill()
    assert "42-seen" in station.run("read", "web")[1]


def test_a_story_that_leaves_nothing(station: Station) -> None:
    picture = station.base / "demo.png"
    status, out, err = station.run("demo", "--json", "--output", str(picture))
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert "\n42\n" in found["terminal"] + "\n"
    assert "NoNewPrivs:\t1" in found["inside"]["stdout"]
    assert "Read-only file system" in found["inside"]["stderr"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not left(out)


@pytest.mark.once  # as above, in words
def test_a_story_told(station: Station) -> None:
    _, out, _ = station.run("demo")
    assert "$ csb-mcp create" in out
    assert "answer.txt" in out
    assert out.index("1. ") < out.index("$ csb-mcp delete demo")
    assert not left(out)


@pytest.mark.once  # a signal is one, whoever gets it
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_story_that_is_interrupted_leaves_nothing(station: Station, how: signal.Signals) -> None:
    process = station.start("demo")
    assert process.stdout
    told = b""
    while b"2. " not in told:
        line = process.stdout.readline()
        assert line, "it ended before"
        told += line
    process.send_signal(how)
    process.stdout.read()
    assert process.wait(40) == 128 + signal.SIGINT
    assert not left(told.decode())


def left(told: str) -> list[str]:
    """What remains of the folder that a story told of: itself, processes that mention it."""
    found = re.search(r"/dev/shm/csb-demo-\w+", told)
    assert found, told
    return [*map(str, mentions(found[0])), *([found[0]] if Path(found[0]).exists() else [])]
