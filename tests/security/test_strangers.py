"""What lies where somebody hostile may write: strangers' sockets, links in a sandbox's folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csb_mcp.host.keeper import DiskKeeper
from csb_mcp.model import Folders
from tests.conftest import User

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
