"""What lies where somebody hostile may write: strangers' sockets, links in a sandbox's folders."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csb_mcp.errors import HelperFailed, TerminalFailed
from csb_mcp.host.keeper import DiskKeeper
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.lib.lock_file import take_lock
from csb_mcp.lib.processes import peer_pid
from csb_mcp.model import Folders
from tests.conftest import User
from tests.support.launched import Host, Launched, launched

LISTEN = """\
import os, socket, sys
os.chdir(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind("mcp.sock")
os.chmod("mcp.sock", 0o777)
listener.listen()
print(flush=True)
connection, _ = listener.accept()
connection.settimeout(5)
try:
    print(connection.recv(100), flush=True)
except OSError:
    print("reset", flush=True)
"""


@pytest.mark.root
def test_a_stranger_who_took_our_runtime_folder_hears_nothing(short_dir: Path, user: User) -> None:
    daemon = short_dir / "run/daemon"
    daemon.mkdir(parents=True)
    short_dir.chmod(0o755)
    for path in (daemon.parent, daemon):
        path.chmod(0o755)
        os.chown(path, user.uid, user.gid)
    squatter = subprocess.Popen(
        user.command("/usr/bin/python3", "-c", LISTEN, str(daemon)), stdout=subprocess.PIPE
    )
    try:
        assert squatter.stdout
        squatter.stdout.readline()
        env = {"HOME": str(short_dir), "CSB_MCP_RUNTIME_DIR": str(short_dir / "run")}
        bridge = subprocess.run(
            [sys.executable, "-m", "csb_mcp", "stdio"],
            env=env,
            input=b"a secret of ours\n",
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert bridge.returncode == 1
        assert b"listens uid %d" % user.uid in bridge.stderr
        assert squatter.communicate(timeout=10)[0].strip() in (b"b''", b"reset")
    finally:
        squatter.kill()
        squatter.communicate()


async def test_last_words_are_not_written_through_a_link(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "run", tmp_path / "state")
    folders.state.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("before")
    last = folders.last_terminal
    for path in (last, last.with_suffix(".part"), Path(f"{last}.part")):
        path.symlink_to(victim)
    keeper = DiskKeeper(tmp_path, tmp_path)
    await keeper.keep_last(folders, terminal="after", screen=None)
    assert victim.read_text() == "before"
    assert await keeper.last_terminal(folders) == "after"


async def test_tools_are_not_taken_from_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project's node_modules/.bin stands in it where npx started the client."""
    for name in ("rm", "chmod"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    folders = Folders(tmp_path / "run", tmp_path / "state")
    folders.state.mkdir()
    await DiskKeeper(tmp_path, tmp_path).remove(folders)
    assert not (tmp_path / "ran").exists()
    assert not folders.state.exists()


# Speaks tmux's protocol (tmux-protocol.h, version 8): has its client write a file.
SERVER = """\
import os, socket, struct, sys
path, victim = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
print(flush=True)
def message(kind, data):
    return struct.pack("=IHHII", kind, 16 + len(data), 0, 8, os.getpid()) + data
flags = os.O_WRONLY | os.O_CREAT
while True:
    client, _ = listener.accept()
    client.sendall(
        message(303, struct.pack("iii", 5, -1, flags) + victim.encode() + bytes(1))
        + message(304, struct.pack("i", 5) + b"planted")
        + message(306, struct.pack("i", 5))
    )
"""


@pytest.mark.root
async def test_a_tmux_that_was_taken_over_writes_no_file_as_root(
    short_dir: Path, user: User
) -> None:
    folders = Folders(short_dir / "run", short_dir / "state")
    for path in (folders.runtime, folders.state):
        path.mkdir(0o700)
        os.chown(path, user.uid, user.gid)
    (short_dir / "closed").mkdir(0o700)
    short_dir.chmod(0o711)
    lifeline = take_lock(folders.lifeline)
    argv = ("/usr/bin/python3", "-c", SERVER, str(folders.tmux_socket))
    victims = [short_dir / "closed/planted", folders.runtime / "planted"]
    for victim in victims:
        folders.tmux_socket.unlink(missing_ok=True)
        server = subprocess.Popen(user.command(*argv, str(victim)), stdout=subprocess.PIPE)
        try:
            assert server.stdout
            server.stdout.readline()
            deadline = asyncio.get_running_loop().time() + 0.5
            with pytest.raises(TerminalFailed):
                await TmuxTerminals().adopt(folders, deadline)
        finally:
            server.kill()
            server.communicate()
    assert lifeline is not None
    os.close(lifeline)
    assert not victims[0].exists()
    assert victims[1].stat().st_uid == user.uid  # it did try


@pytest.mark.root
def test_a_listener_of_another_user_than_the_folders_is_nobody_to_be_ended(
    short_dir: Path, user: User
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "init"))
        listener.listen()
        (short_dir / "run").mkdir()
        os.chown(short_dir / "run", user.uid, user.gid)
        (short_dir / "run/tmux").symlink_to(short_dir / "init")
        with pytest.raises(PermissionError):
            peer_pid(short_dir / "run/tmux")


@pytest.fixture
def host(short_dir: Path) -> Host:
    return Host.make(short_dir, os.getuid())


@pytest.fixture
async def box(host: Host, tmp_path: Path) -> AsyncIterator[Launched]:
    tmp_path.chmod(0o755)
    async with launched(host, tmp_path) as box:
        yield box


async def test_requests_are_not_written_through_a_link(box: Launched, tmp_path: Path) -> None:
    """The folder of requests belongs to the sandbox's uid, and root writes in it."""
    victim = tmp_path / "victim"
    victim.mkdir()
    before = victim.stat().st_mtime_ns
    box.folders.exec.rename(box.folders.runtime / "away")
    box.folders.exec.symlink_to(victim)
    with pytest.raises(HelperFailed, match="cannot be written"):
        await box.sh("true", timeout=1)
    assert victim.stat().st_mtime_ns == before


async def test_complaints_are_not_read_through_a_link(
    host: Host, box: Launched, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of root's")
    complaints = box.folders.runtime / "launcher.log"
    complaints.unlink(missing_ok=True)
    complaints.symlink_to(tmp_path / "secret")
    box.process.kill()
    await box.ended()
    with pytest.raises(HelperFailed) as caught:
        await host.backend.connect(box.folders, box.process.pid, 0.0)
    assert "of root's" not in str(caught.value)
