"""What is found where no sandbox need be made: devices, the bus's greeting, the doctor's words."""

import os
import runpy
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Settings, load_settings
from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.host import forwarding
from csb_mcp.host.checks import Outcome, forward
from csb_mcp.host.forwarding import Forwarder, Payload
from csb_mcp.host.launchers import Launchers, sources
from tests.conftest import User


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path / "state",
        runtime_dir=tmp_path / "run",
        config_file=tmp_path / "none",
        project_roots=(tmp_path,),
    )


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(os.getuid(), os.getgid(), tmp_path / "forward", tmp_path / "app")


def test_render_nodes_and_no_other(
    tmp_path: Path, settings: Settings, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a card: this host need not have one. /dev/null is a device that opens."""
    dri = tmp_path / "dri"
    dri.mkdir()
    for name in ("renderD128", "renderD129", "card0"):
        (dri / name).symlink_to("/dev/null")
    found = Forwarder(settings, {}, dri=dri).find(("gpu",), payload)
    nodes = [f"gpu={dri}/renderD128", f"gpu={dri}/renderD129"]
    assert found.words == ("--forward", nodes[0], "--forward", nodes[1])
    assert not found.environment
    (dri / "renderD130").write_text("")
    with pytest.raises(HostUnable, match="no device"):
        Forwarder(settings, {}, dri=dri).find(("gpu",), payload)
    monkeypatch.setattr(forwarding, "reachable", _closed)
    (dri / "renderD130").unlink()
    with pytest.raises(HostUnable, match="closed"):
        Forwarder(settings, {}, dri=dri).find(("gpu",), payload)


def _closed(*_: object) -> None:
    raise HostUnable("closed", field="forward")


def test_the_launcher_makes_the_node_before_dev_is_closed(short_dir: Path, user: User) -> None:
    short_dir.chmod(0o755)
    settings = Settings(
        state_dir=short_dir, runtime_dir=short_dir, config_file=short_dir, project_roots=()
    )
    launchers = Launchers(short_dir / "launchers", settings)
    launchers.install()
    node, home, project = "/dev/null", short_dir / "home", short_dir / "app"
    for path in (home, project):
        path.mkdir()
        os.chown(path, user.uid, user.gid)
    options = ("--print-args", "--home", str(home), "--forward", f"gpu={node}")
    argv = user.command(str(launchers.path("bubblewrap")), *options, str(project), "--", "true")
    words = subprocess.run(argv, env={}, capture_output=True, text=True, check=True).stdout
    assert words.index(f"--dev-bind {node} {node}") < words.index("--remount-ro /dev ")
    number = os.stat(node).st_rdev
    link = f"/sys/dev/char/{os.major(number)}:{os.minor(number)}"
    assert (f"{link}" in words) == Path(link, "device").exists()


def test_names_settings_and_the_doctor(settings: Settings, payload: Payload) -> None:
    with pytest.raises(InvalidInput) as caught:
        Forwarder(settings, {}).find(("keys",), payload)
    assert "ssh-agent" in caught.value.choices
    assert Forwarder(settings, {}).find((), payload).words == ()
    assert not payload.folder.exists()
    assert not list(forward.checks(settings))
    environ = {"CSB_MCP_FORWARD": "git:dbus", "CSB_MCP_SSH_AGENT": "/x/y", "HOME": "/home/me"}
    loaded = load_settings({}, environ)
    assert (loaded.forward, loaded.ssh_agent) == (("git", "dbus"), Path("/x/y"))
    found = list(forward.checks(loaded))
    assert [check.what for check in found] == ["forward git", "forward dbus"]
    assert all(check.outcome in (Outcome.OK, Outcome.WEAK) for check in found)


def test_small_files_are_for_the_payload_alone(settings: Settings, payload: Payload) -> None:
    path = forwarding._file(payload, "x", "text")  # pyright: ignore[reportPrivateUsage]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.fixture(scope="module")
def door() -> dict[str, Any]:
    return runpy.run_path(str(sources() / "bus.py"))  # an import would leave a folder beside it


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def greeted(door: dict[str, Any], ends: tuple[socket.socket, socket.socket], said: bytes) -> bytes:
    """What the bus is told, if a client says this in small pieces."""
    way = door["Way"](ends[1], ends[0], b"31373737")
    for i in range(0, len(said), 3):
        ends[0].sendall(said[i : i + 3])
        way.read()
    return bytes(way.waiting)


BEGIN = b"BEGIN\r\nl\1\0\1AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\0AUTH EXTERNAL 31303030\r\n", b"\0AUTH EXTERNAL 31373737\r\n"),
        (b"\0AUTH\r\nAUTH EXTERNAL 30\r\n", b"\0AUTH\r\nAUTH EXTERNAL 31373737\r\n"),
        (b"\0AUTH EXTERNAL\r\nDATA\r\n", b"\0AUTH EXTERNAL\r\nDATA\r\n"),
        (b"NEGOTIATE_UNIX_FD\r\n", b"NEGOTIATE_NOTHING\r\n"),
        (BEGIN, BEGIN),  # what comes after it is no greeting, whatever it looks like
        (b"half a line", b""),
    ],
)
def test_the_greeting(
    door: dict[str, Any], ends: tuple[socket.socket, socket.socket], said: bytes, told: bytes
) -> None:
    assert greeted(door, ends, said) == told


def test_a_greeting_without_an_end_is_cut(
    door: dict[str, Any], ends: tuple[socket.socket, socket.socket]
) -> None:
    with pytest.raises(ValueError, match="no greeting"):
        greeted(door, ends, b"x" * 20000)
